//! Waiting for the head of an answer, no longer than the limit after the request last got on.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::body::Progress;
use crate::refusal::Refusal;

/// The output of `answer`, or whose fault it is that there is none: the clock runs from the last progress of the
/// request's body, so that a slow upload is not mistaken for a slow instance.
pub(crate) async fn answer_within<T>(
    limit: Duration,
    progress: &Progress,
    answer: impl Future<Output = T>,
) -> Result<T, Refusal> {
    let mut answer = pin!(answer);
    let begun = Instant::now();
    let deadline = || progress.last().max(begun) + limit;
    let mut expiry = pin!(sleep_until(deadline()));
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            () = &mut expiry => {}
        }
        if Instant::now() < deadline() {
            expiry.as_mut().reset(deadline());
        } else if progress.is_done() {
            return Err(Refusal::ResponseTimeout);
        } else {
            return Err(Refusal::ClientTooSlow);
        }
    }
}
