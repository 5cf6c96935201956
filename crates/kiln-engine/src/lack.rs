//! What the system refuses for want of something that whoever runs the host can give.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// The next step after an error behind which the system's answer is that a limit is reached; none after others.
pub fn remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let refusal = refusal(error)?;
    match Errno::from_raw_os_error(refusal) {
        Errno::MFILE => Some(
            "the limit of open files is reached: raise it for what starts `kiln serve` (`ulimit -n`, `LimitNOFILE=`)",
        ),
        Errno::NFILE => Some("the host's limit of open files is reached: raise fs.file-max"),
        Errno::AGAIN => Some(
            "the limit of processes and threads is reached: raise it for what starts `kiln serve` (`pids.max`, \
             `TasksMax=`, `ulimit -u`)",
        ),
        _ => None,
    }
}

/// What the system answered, in the error itself or one behind it.
pub(crate) fn refusal(error: &(dyn Error + 'static)) -> Option<i32> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
        Some(number) => Some(number),
        None => refusal(error.source()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("it could not be made")]
    struct Outer(#[source] io::Error);

    #[test]
    fn limits_that_are_reached_have_a_next_step_and_nothing_else_has() {
        let of = |number: Errno| remedy(&Outer(number.into()));
        assert!(of(Errno::MFILE).unwrap().contains("`ulimit -n`"));
        assert!(of(Errno::AGAIN).unwrap().contains("`pids.max`"));
        assert_eq!(of(Errno::NOENT), None);
        assert_eq!(remedy(&io::Error::other("no number")), None);
    }
}
