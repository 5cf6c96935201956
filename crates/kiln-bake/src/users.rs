//! The users of an image: names and numbers, from its own `/etc/passwd` and `/etc/group`.

use kiln_model::{INSTANCE_IDS, Node, Tree};
use kiln_store::Store;

use crate::content;
use crate::nearest::{did_you_mean, nearest};

/// A user or group that an image cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// The image does not know it.
    #[error("there is no {kind} `{name}` in the image's {file}{hint}")]
    Unknown {
        /// User or group.
        kind: &'static str,
        /// As it is asked for.
        name: String,
        /// Where it would be.
        file: &'static str,
        /// Names that may have been meant, or nothing.
        hint: String,
    },
    /// No instance can have it.
    #[error("{kind} {id} of `{name}` is beyond the numbers of an instance, which has those from 0 to {}", INSTANCE_IDS - 1)]
    Beyond {
        /// User or group.
        kind: &'static str,
        /// As it is asked for.
        name: String,
        /// Its number.
        id: u32,
    },
}

/// The group of a user who is a number alone, which the image does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum LoneGroup {
    /// The group of the same number: who asks for a number in kiln.toml asks for nobody's rights but its own.
    #[default]
    Own,
    /// Root's: OCI images are made for it, and let that group write what any user of theirs has to.
    Root,
}

/// Everyone an image knows.
pub(crate) struct Users {
    passwd: String,
    group: String,
}

/// One of them, with numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

impl Users {
    /// Those of `tree`; an image without the files knows only numbers.
    pub(crate) fn of(tree: &Tree, store: &Store) -> Result<Self, kiln_store::StoreError> {
        Ok(Self { passwd: text(tree, "/etc/passwd", store)?, group: text(tree, "/etc/group", store)? })
    }

    #[cfg(test)]
    pub(crate) fn of_text(passwd: &str, group: &str) -> Self {
        Self { passwd: passwd.into(), group: group.into() }
    }

    /// Who is meant by `user[:group]`, names or numbers. Nobody in particular is root, who needs no line to be known.
    /// Further groups are those of a name that is known and comes without a group: who names one has that one alone.
    pub(crate) fn user(&self, wanted: Option<&str>, lone: LoneGroup) -> Result<User, UserError> {
        let wanted = wanted.unwrap_or("0");
        let (name, group) = wanted.split_once(':').map_or((wanted, None), |(n, g)| (n, Some(g)));
        let group = group.filter(|group| !group.is_empty());
        let known = lines(&self.passwd).find(|f| f.first() == Some(&name) || f.get(2) == Some(&name));
        let number = |fields: &[&str], i: usize| fields.get(i).and_then(|f| f.parse().ok());
        let (name, uid, own_group) = match &known {
            Some(f) => (f[0].to_owned(), number(f, 2), number(f, 3)),
            None => {
                let uid = if name == "root" { Some(0) } else { name.parse().ok() };
                let name = if uid == Some(0) { "root" } else { name };
                (name.to_owned(), uid, None)
            }
        };
        let Some(uid) = uid else { return Err(self.no_user(&name)) };
        let gid = match (group, lone) {
            (Some(group), _) => self.group(group)?,
            (None, LoneGroup::Root) => own_group.unwrap_or(0),
            (None, LoneGroup::Own) => own_group.unwrap_or(uid),
        };
        let implied = known.is_some() && group.is_none();
        let groups = if implied { self.groups_of(&name, gid) } else { Vec::new() };
        for (kind, id) in
            [("user", uid), ("group", gid)].into_iter().chain(groups.iter().map(|g| ("group", *g)))
        {
            if id >= INSTANCE_IDS {
                return Err(UserError::Beyond { kind, name: wanted.into(), id });
            }
        }
        Ok(User { name, uid, gid, groups })
    }

    /// The numbers of `user` or `user:group`; the group is the user's own if absent.
    pub(crate) fn owner(&self, wanted: &str) -> Result<(u32, u32), UserError> {
        self.user(Some(wanted), LoneGroup::Own).map(|u| (u.uid, u.gid))
    }

    fn group(&self, wanted: &str) -> Result<u32, UserError> {
        let known =
            lines(&self.group).find(|f| f.first() == Some(&wanted)).and_then(|f| f.get(2)?.parse().ok());
        known.or_else(|| wanted.parse().ok()).ok_or_else(|| UserError::Unknown {
            kind: "group",
            name: wanted.into(),
            file: "/etc/group",
            hint: did_you_mean(&nearest(wanted, lines(&self.group).filter_map(|f| f.first().copied()))),
        })
    }

    fn groups_of(&self, name: &str, own: u32) -> Vec<u32> {
        let has = |f: &Vec<&str>| f.get(3).is_some_and(|members| members.split(',').any(|m| m == name));
        let mut groups: Vec<u32> = lines(&self.group)
            .filter(has)
            .filter_map(|f| f.get(2)?.parse().ok())
            .filter(|g| *g != own)
            .collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn no_user(&self, name: &str) -> UserError {
        UserError::Unknown {
            kind: "user",
            name: name.into(),
            file: "/etc/passwd",
            hint: did_you_mean(&nearest(name, lines(&self.passwd).filter_map(|f| f.first().copied()))),
        }
    }
}

/// Which paths belong to a user or group that no instance has, in words; nothing if none does.
pub(crate) fn nobodys(tree: &Tree) -> Option<String> {
    let beyond = |node: &Node| node.meta().is_some_and(|m| m.uid >= INSTANCE_IDS || m.gid >= INSTANCE_IDS);
    let mut paths = tree.iter().filter(|(_, node)| beyond(node)).map(|(path, _)| path);
    let first = String::from_utf8_lossy(paths.next()?).escape_debug().to_string();
    let others = match paths.count() {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    Some(format!(
        "{first}{others}: of users or groups above {}, which instances do not have: nobody's there",
        INSTANCE_IDS - 1
    ))
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|l| l.split(':').collect())
}

/// The text of a file of the tree; nothing if there is none.
pub(crate) fn text(tree: &Tree, path: &str, store: &Store) -> Result<String, kiln_store::StoreError> {
    Ok(String::from_utf8_lossy(&content::read(tree, path, store)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        Users {
            passwd: "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:34:w:/var/www:/bin/sh\n".into(),
            group: "root:x:0:\nwww-data:x:34:\nadm:x:4:www-data\nssl-cert:x:110:www-data,x\n".into(),
        }
    }

    fn user(users: &Users, wanted: Option<&str>) -> Result<User, UserError> {
        users.user(wanted, LoneGroup::Own)
    }

    #[test]
    fn names_and_numbers() {
        let www = User { name: "www-data".into(), uid: 33, gid: 34, groups: vec![4, 110] };
        assert_eq!(user(&users(), Some("www-data")), Ok(www.clone()));
        assert_eq!(user(&users(), Some("33:")), Ok(www.clone()));
        assert_eq!(user(&users(), Some("33")), Ok(www));
        assert_eq!(user(&users(), None).map(|u| (u.name, u.uid)), Ok(("root".into(), 0)));
        let nobody = user(&users(), Some("1000")).unwrap();
        assert_eq!((nobody.uid, nobody.gid), (1000, 1000));
        assert_eq!(users().owner("www-data:adm"), Ok((33, 4)));
        let bare = Users { passwd: String::new(), group: "adm:x:4:root,1000\n".into() };
        for nobody in [None, Some("0"), Some("root"), Some("root:0")] {
            let root = User { name: "root".into(), uid: 0, gid: 0, groups: Vec::new() };
            assert_eq!(user(&bare, nobody), Ok(root));
        }
        assert!(user(&bare, Some("rooot")).is_err());
    }

    #[test]
    fn a_number_that_an_oci_image_does_not_know_is_in_the_group_of_root() {
        let of_image = |wanted| users().user(Some(wanted), LoneGroup::Root).map(|u| (u.uid, u.gid, u.groups));
        assert_eq!(of_image("1000"), Ok((1000, 0, vec![])));
        assert_eq!(of_image("1000:7"), Ok((1000, 7, vec![])));
        assert_eq!(of_image("33"), Ok((33, 34, vec![4, 110])));
    }

    #[test]
    fn who_names_a_group_has_that_one_alone() {
        let of = |wanted| user(&users(), Some(wanted)).map(|u| (u.name, u.gid, u.groups));
        assert_eq!(of("33:0"), Ok(("www-data".into(), 0, vec![])));
        assert_eq!(of("www-data:www-data"), Ok(("www-data".into(), 34, vec![])));
    }

    #[test]
    fn what_no_instance_can_have_is_refused() {
        let bare = Users::of_text("big:x:70000:7::/:/bin/sh\nin:x:7:7::/:/bin/sh\n", "far:x:65536:in\n");
        for (wanted, beyond) in [
            ("65536", "user 65536 of `65536`"),
            ("4294967295", "user 4294967295"),
            ("1:65536", "group 65536 of `1:65536`"),
            ("big", "user 70000 of `big`"),
            ("in", "group 65536 of `in`"),
        ] {
            let said = user(&bare, Some(wanted)).unwrap_err().to_string();
            assert!(said.starts_with(beyond) && said.ends_with("those from 0 to 65535"), "{said}");
        }
        assert_eq!(bare.owner("65535:65535"), Ok((65_535, 65_535)));
        assert!(bare.owner("0:70000").is_err());
    }

    #[test]
    fn an_unknown_one_is_named_with_its_likes() {
        let error = user(&users(), Some("ww-data")).unwrap_err().to_string();
        assert_eq!(error, "there is no user `ww-data` in the image's /etc/passwd (did you mean `www-data`?)");
        assert!(users().owner("root:amd").is_err());
    }
}
