//! A request's body that can be sent again: what an instance was sent of it is kept while it is small, for the case that
//! the instance says that it has not begun with the request.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::HeaderMap;
use hyper::body::{Bytes, Frame, SizeHint};

use crate::body::{BrokenUpload, Upload};

/// Bytes that are kept; of a body that is longer nothing is. A call of gRPC with one message seldom has more.
const AT_MOST: usize = 64 * 1024;

/// What comes from the client, and what has come of it.
struct Source {
    upload: Upload,
    /// All that has come; none if that is too much, or is not needed any more.
    data: Option<Vec<u8>>,
    trailers: Option<HeaderMap>,
    /// Which sending of it is the last one. Those before get nothing more.
    sending: u32,
}

/// One sending of a body.
pub(crate) struct KeptBody {
    source: Rc<RefCell<Source>>,
    sending: u32,
    /// What this sending has still to say of what has come before it.
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl KeptBody {
    pub(crate) fn new(upload: Upload) -> Self {
        let source = Source { upload, data: Some(Vec::new()), trailers: None, sending: 0 };
        Self { source: Rc::new(RefCell::new(source)), sending: 0, data: None, trailers: None }
    }

    /// Another sending, from the beginning; none if that is not there any more.
    pub(crate) fn again(&self) -> Option<Self> {
        let mut source = self.source.borrow_mut();
        let data = source.data.as_deref().map(Bytes::copy_from_slice)?;
        source.sending += 1;
        let (sending, trailers) = (source.sending, source.trailers.clone());
        let data = Some(data).filter(|data| !data.is_empty());
        Some(Self { source: self.source.clone(), sending, data, trailers })
    }

    /// Whether it can be sent again.
    pub(crate) fn is_whole(&self) -> bool {
        self.source.borrow().data.is_some()
    }

    /// It will not be sent again: nothing more is kept.
    pub(crate) fn let_go(&self) {
        self.source.borrow_mut().data = None;
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        let mut source = self.source.borrow_mut();
        if source.sending != self.sending {
            // Its stream has been refused, which is what wakes whoever sends this.
            return Poll::Pending;
        }
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = source.upload.poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            source.keep(frame);
        }
        frame
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let has_said_all = self.data.is_none() && self.trailers.is_none();
        has_said_all && self.source.borrow().upload.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let before = self.data.as_ref().map_or(0, |data| data.len() as u64);
        let rest = self.source.borrow().upload.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + before);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + before);
        }
        hint
    }
}

impl Source {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
        if let (Some(piece), Some(data)) = (frame.data_ref(), &mut self.data) {
            if data.len() + piece.len() <= AT_MOST {
                data.extend_from_slice(piece);
            } else {
                self.data = None;
            }
        }
    }
}
