//! The users of an image: names and numbers, from its own `/etc/passwd` and `/etc/group`.

use kiln_model::Tree;
use kiln_store::Store;

use crate::content;
use crate::nearest::{did_you_mean, nearest};

/// A user or group that the image does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no {kind} `{name}` in the image's {file}{hint}")]
pub struct UserError {
    kind: &'static str,
    name: String,
    file: &'static str,
    hint: String,
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

    /// Who is meant by a name, or by `uid[:gid]`. Nobody in particular is root, who needs no line to be known.
    pub(crate) fn user(&self, wanted: Option<&str>) -> Result<User, UserError> {
        let wanted = wanted.unwrap_or("0");
        let (name, group) = wanted.split_once(':').map_or((wanted, None), |(n, g)| (n, Some(g)));
        let known = lines(&self.passwd).find(|f| f.first() == Some(&name) || f.get(2) == Some(&name));
        let number = |fields: &[&str], i: usize| fields.get(i).and_then(|f| f.parse().ok());
        let (name, uid, own_group) = match known {
            Some(f) => (f[0].to_owned(), number(&f, 2), number(&f, 3)),
            None => {
                let uid = if name == "root" { Some(0) } else { name.parse().ok() };
                let name = if uid == Some(0) { "root" } else { name };
                (name.to_owned(), uid, None)
            }
        };
        let Some(uid) = uid else { return Err(self.no_user(&name)) };
        let gid = match group {
            Some(group) => self.group(group)?,
            None => own_group.unwrap_or(uid),
        };
        let groups = self.groups_of(&name, gid);
        Ok(User { name, uid, gid, groups })
    }

    /// The numbers of `user` or `user:group`; the group is the user's own if absent.
    pub(crate) fn owner(&self, wanted: &str) -> Result<(u32, u32), UserError> {
        self.user(Some(wanted)).map(|u| (u.uid, u.gid))
    }

    fn group(&self, wanted: &str) -> Result<u32, UserError> {
        let known =
            lines(&self.group).find(|f| f.first() == Some(&wanted)).and_then(|f| f.get(2)?.parse().ok());
        known.or_else(|| wanted.parse().ok()).ok_or_else(|| UserError {
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
        UserError {
            kind: "user",
            name: name.into(),
            file: "/etc/passwd",
            hint: did_you_mean(&nearest(name, lines(&self.passwd).filter_map(|f| f.first().copied()))),
        }
    }
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

    #[test]
    fn names_and_numbers() {
        let www = User { name: "www-data".into(), uid: 33, gid: 34, groups: vec![4, 110] };
        assert_eq!(users().user(Some("www-data")), Ok(www.clone()));
        assert_eq!(users().user(Some("33")), Ok(www));
        assert_eq!(users().user(None).map(|u| (u.name, u.uid)), Ok(("root".into(), 0)));
        let nobody = users().user(Some("1000")).unwrap();
        assert_eq!((nobody.uid, nobody.gid), (1000, 1000));
        assert_eq!(users().owner("www-data:adm"), Ok((33, 4)));
        let bare = Users { passwd: String::new(), group: String::new() };
        for nobody in [None, Some("0"), Some("root"), Some("root:0")] {
            assert_eq!(bare.user(nobody).map(|u| (u.name, u.uid, u.gid)), Ok(("root".into(), 0, 0)));
        }
        assert!(bare.user(Some("rooot")).is_err());
    }

    #[test]
    fn an_unknown_one_is_named_with_its_likes() {
        let error = users().user(Some("ww-data")).unwrap_err().to_string();
        assert_eq!(error, "there is no user `ww-data` in the image's /etc/passwd (did you mean `www-data`?)");
        assert!(users().owner("root:amd").is_err());
    }
}
