//! Low numbers for the descriptors of children.
//!
//! A child begins with its parent's table of descriptors, and needs a few of them. A copy of the whole table would cost
//! it a microsecond for every hundred instances that run already, and as much again to close it. So it shares the
//! table, and then keeps a copy of its lowest numbers only (`CLOSE_RANGE_UNSHARE`); what it needs must be there.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use rustix::io::{DupFlags, dup3, fcntl_dupfd_cloexec};

use super::script::Span;

/// How many children prepare themselves at the same time. They do so on other processors while the keeper makes the
/// next one; with more than a few, all of them only become slower.
pub(crate) const LAUNCHES_AT_ONCE: usize = 3;

/// A child's channel, standard output and standard error, and its list of names.
type Descriptors = [OwnedFd; 4];

/// The reserved numbers. Those that are free lead to /dev/null.
#[derive(Debug)]
pub(crate) struct Slots {
    null: OwnedFd,
    /// What every child needs for a while: the directories of the control groups it joins.
    kept: Vec<OwnedFd>,
    free: RefCell<Vec<Descriptors>>,
    end: RawFd,
}

/// Numbers in use. They are free again with the end of this value.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Rc<Slots>,
    numbers: Option<Descriptors>,
}

impl Slots {
    /// Above the numbers a child uses itself.
    const LOWEST: RawFd = Span::FIRST as RawFd;

    /// Reserves the lowest numbers there are, some of them for copies of what is to be kept.
    pub(crate) fn reserve(null: BorrowedFd<'_>, keep: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let copy = |fd: BorrowedFd<'_>| fcntl_dupfd_cloexec(fd, Self::LOWEST);
        let kept = keep.iter().map(|fd| copy(*fd)).collect::<Result<Vec<_>, _>>()?;
        let own = copy(null)?;
        let mut free = Vec::with_capacity(LAUNCHES_AT_ONCE);
        for _ in 0..LAUNCHES_AT_ONCE {
            free.push([copy(null)?, copy(null)?, copy(null)?, copy(null)?]);
        }
        let all = free.iter().flatten().chain([&own]).chain(&kept);
        let end = all.map(AsRawFd::as_raw_fd).max().unwrap_or(Self::LOWEST) + 1;
        Ok(Self { null: own, kept, free: RefCell::new(free), end })
    }

    /// Lets go of whatever another process that shares the table has left in them.
    pub(crate) fn clear(&self) -> io::Result<()> {
        self.free.borrow_mut().iter_mut().try_for_each(|numbers| self.empty(numbers))
    }

    fn empty(&self, numbers: &mut Descriptors) -> io::Result<()> {
        numbers.iter_mut().try_for_each(|number| Ok(dup3(&self.null, number, DupFlags::CLOEXEC)?))
    }

    /// Moves descriptors to reserved numbers, and copies a list of names to one if there is one.
    pub(super) fn fill(
        self: &Rc<Self>,
        streams: [OwnedFd; 3],
        names: Option<BorrowedFd<'_>>,
    ) -> io::Result<Slot> {
        let numbers = self.free.borrow_mut().pop().ok_or(io::ErrorKind::WouldBlock)?;
        let mut slot = Slot { slots: self.clone(), numbers: Some(numbers) };
        let all = streams.iter().map(AsFd::as_fd).chain(names);
        for (from, to) in all.zip(slot.numbers.iter_mut().flatten()) {
            dup3(from, to, DupFlags::CLOEXEC)?;
        }
        Ok(slot)
    }

    /// The numbers of what is kept.
    pub(super) fn kept(&self) -> Vec<RawFd> {
        self.kept.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// /dev/null, at a reserved number.
    pub(super) fn null(&self) -> RawFd {
        self.null.as_fd().as_raw_fd()
    }

    /// The first number that is not reserved.
    pub(super) fn end(&self) -> RawFd {
        self.end
    }
}

impl Slot {
    /// The reserved numbers: channel, standard output, standard error, list of names.
    pub(super) fn numbers(&self) -> [RawFd; 4] {
        self.numbers.as_ref().map_or([-1; 4], |all| all.each_ref().map(AsRawFd::as_raw_fd))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(mut numbers) = self.numbers.take()
            && self.slots.empty(&mut numbers).is_ok()
        {
            self.slots.free.borrow_mut().push(numbers);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn a_slot_holds_its_descriptors_until_it_goes() {
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let slots = Rc::new(Slots::reserve(null.as_fd(), &[null.as_fd()]).unwrap());
        let (reader, writer) = pipe().unwrap();
        let writers = || [(); 3].map(|()| writer.try_clone().unwrap());
        let names = Some(writer.as_fd());
        let full: Vec<Slot> = (0..LAUNCHES_AT_ONCE).map(|_| slots.fill(writers(), names).unwrap()).collect();
        assert!(slots.fill(writers(), None).is_err(), "there are no more");
        assert!(slots.kept().iter().all(|n| *n >= Slots::LOWEST && *n < slots.end()));
        assert!(full.iter().flat_map(Slot::numbers).all(|n| n >= Slots::LOWEST && n < slots.end()));
        drop(writer);
        rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK).unwrap();
        assert_eq!(rustix::io::read(&reader, &mut [0]), Err(rustix::io::Errno::AGAIN), "they are open");
        drop(full);
        assert_eq!(rustix::io::read(&reader, &mut [0]), Ok(0), "they are closed");
        assert_eq!(slots.free.borrow().len(), LAUNCHES_AT_ONCE);
    }
}
