//! Whether what somebody has asked for is still wanted. It is decided once: given up, or in force.

use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// Shared by whoever asked, by those who may call it off, and by the core that does it.
#[derive(Debug, Clone, Default)]
pub struct Will(Arc<Mutex<Standing>>);

#[derive(Debug, Default)]
enum Standing {
    #[default]
    Wanted,
    /// Why not.
    GivenUp(String),
    /// There is nothing left to give up: it is being put in force, or is.
    InForce,
}

impl Will {
    /// It is wanted no more. Whether it will not be done: what is in force is not given up.
    pub fn give_up(&self, why: impl Into<String>) -> bool {
        let mut standing = lock(&self.0);
        if matches!(*standing, Standing::Wanted) {
            *standing = Standing::GivenUp(why.into());
        }
        matches!(*standing, Standing::GivenUp(_))
    }

    /// Whether it is wanted no more.
    pub fn is_given_up(&self) -> bool {
        self.given_up().is_some()
    }

    /// Whether nobody can give it up any more.
    pub fn is_in_force(&self) -> bool {
        matches!(*lock(&self.0), Standing::InForce)
    }

    /// Why it is wanted no more, if so.
    pub(super) fn given_up(&self) -> Option<String> {
        match &*lock(&self.0) {
            Standing::GivenUp(why) => Some(why.clone()),
            Standing::Wanted | Standing::InForce => None,
        }
    }

    /// Nobody can give it up from now on. Whether nobody had before.
    pub(crate) fn put_in_force(&self) -> bool {
        let mut standing = lock(&self.0);
        if matches!(*standing, Standing::Wanted) {
            *standing = Standing::InForce;
        }
        matches!(*standing, Standing::InForce)
    }

    /// It has not come into force, and may be given up again.
    pub(super) fn is_not_in_force(&self) {
        let mut standing = lock(&self.0);
        if matches!(*standing, Standing::InForce) {
            *standing = Standing::Wanted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_not_put_in_force_and_what_is_in_force_is_not_given_up() {
        let will = Will::default();
        assert!(will.clone().give_up("ann left") && will.give_up("bob, too"));
        assert_eq!((will.put_in_force(), will.given_up().as_deref()), (false, Some("ann left")));
        let will = Will::default();
        assert!(will.put_in_force() && will.put_in_force() && !will.give_up("too late"));
        assert_eq!(will.given_up(), None);
        will.is_not_in_force();
        assert!(will.give_up("the edge did not take it"));
    }
}
