//! Users that an image is given: lines of its own `/etc/passwd`, `/etc/group` and their shadows.

use kiln_model::spec::UserSpec;
use kiln_model::{Meta, Node};
use kiln_store::{Batch, Store, StoreError};

use crate::content;
use crate::tree_edit::{TreeEdit, node_at, resolve, root_meta};
use crate::users;

/// The home of users who are given none.
const NO_HOME: &str = "/nonexistent";
/// The shell of users who are given none.
const NO_SHELL: &str = "/usr/sbin/nologin";

/// Numbers that are given to those who ask for none: first those of services, then those of people.
const FREE: [std::ops::RangeInclusive<u32>; 2] = [100..=999, 1000..=59_999];

/// A user that an image cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The image has something else by that name or number.
    #[error("user `{name}` cannot be added: {problem}")]
    Taken {
        /// The user.
        name: String,
        /// What is in the way.
        problem: String,
    },
    /// The image's files cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// They are no place for a file.
    #[error("the image's users cannot be written")]
    Tree(#[from] kiln_model::TreeError),
}

/// Gives the tree these users. One that is there already stays as it is, unless something else is asked of it.
pub(crate) fn add(
    edit: &mut TreeEdit,
    wanted: &[UserSpec],
    epoch: i64,
    store: &Store,
) -> Result<(), AccountError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let text = |path: &str| users::text(edit.tree(), path, store);
    let has = |path: &str| node_at(edit.tree(), path.as_bytes()).is_some();
    let (shadow, gshadow) = (has("/etc/shadow"), has("/etc/gshadow"));
    let mut accounts = Accounts {
        passwd: lines(&text("/etc/passwd")?),
        group: lines(&text("/etc/group")?),
        shadow: lines(&text("/etc/shadow")?),
        gshadow: lines(&text("/etc/gshadow")?),
    };
    for user in wanted {
        accounts.add(user).map_err(|problem| AccountError::Taken { name: user.name.clone(), problem })?;
    }
    // Kept at once: who owns what comes next is looked up in them.
    let batch = store.objects().batch()?;
    let mut write = |path: &str, lines: &[String]| put(edit, path, lines, epoch, &batch);
    write("/etc/passwd", &accounts.passwd)?;
    write("/etc/group", &accounts.group)?;
    if shadow {
        write("/etc/shadow", &accounts.shadow)?;
    }
    if gshadow {
        write("/etc/gshadow", &accounts.gshadow)?;
    }
    batch.commit()?;
    Ok(())
}

/// The files, line by line.
#[derive(Default)]
struct Accounts {
    passwd: Vec<String>,
    group: Vec<String>,
    shadow: Vec<String>,
    gshadow: Vec<String>,
}

impl Accounts {
    fn add(&mut self, user: &UserSpec) -> Result<(), String> {
        match find(&self.passwd, &user.name) {
            Some(line) => is_as_wanted(line, user)?,
            None => self.new_user(user)?,
        }
        user.groups.iter().try_for_each(|group| self.join(&user.name, group))
    }

    fn new_user(&mut self, user: &UserSpec) -> Result<(), String> {
        let name = &user.name;
        let home = user.home.as_deref().unwrap_or(NO_HOME);
        let shell = user.shell.as_deref().unwrap_or(NO_SHELL);
        let uid = self.uid(user)?;
        let gid = self.gid(user, uid)?;
        self.passwd.push(format!("{name}:x:{uid}:{gid}::{home}:{shell}"));
        self.shadow.push(format!("{name}:!:::::::"));
        Ok(())
    }

    fn uid(&self, user: &UserSpec) -> Result<u32, String> {
        let Some(uid) = user.uid else {
            let free = |id: &u32| owner(&self.passwd, *id).is_none() && owner(&self.group, *id).is_none();
            return FREE.into_iter().flatten().find(free).ok_or("no number is free".into());
        };
        match owner(&self.passwd, uid) {
            Some(other) => Err(format!("number {uid} is that of user `{other}`")),
            None => Ok(uid),
        }
    }

    /// The number of the group of the user's name, which is made if there is none.
    fn gid(&mut self, user: &UserSpec, uid: u32) -> Result<u32, String> {
        let name = &user.name;
        if let Some(gid) = find(&self.group, name).and_then(|line| number(line)) {
            return match user.gid {
                Some(other) if other != gid => Err(format!("the image has its group as number {gid}")),
                _ => Ok(gid),
            };
        }
        let gid = user.gid.unwrap_or(uid);
        if let Some(other) = owner(&self.group, gid) {
            return Err(format!("number {gid} is that of group `{other}` (give another `gid`)"));
        }
        self.group.push(format!("{name}:x:{gid}:"));
        self.gshadow.push(format!("{name}:!::"));
        Ok(gid)
    }

    fn join(&mut self, user: &str, group: &str) -> Result<(), String> {
        let named = |line: &&mut String| field(line, 0) == group;
        let line = self.group.iter_mut().find(named).ok_or(format!("there is no group `{group}`"))?;
        add_member(line, user);
        if let Some(line) = self.gshadow.iter_mut().find(named) {
            add_member(line, user);
        }
        Ok(())
    }
}

/// Whether the user of this line is the one who is wanted, in all that is said of that one.
fn is_as_wanted(line: &str, user: &UserSpec) -> Result<(), String> {
    let has = |what: &str, index| Err(format!("the image has it{what} {}", field(line, index)));
    if user.uid.is_some_and(|uid| number(line) != Some(uid)) {
        return has(" as number", 2);
    }
    if user.gid.is_some_and(|gid| field(line, 3).parse::<u32>() != Ok(gid)) {
        return has(" in the group with number", 3);
    }
    if user.home.as_ref().is_some_and(|home| field(line, 5) != home) {
        return has(" with the home directory", 5);
    }
    if user.shell.as_ref().is_some_and(|shell| field(line, 6) != shell) {
        return has(" with the shell", 6);
    }
    Ok(())
}

fn add_member(line: &mut String, user: &str) {
    let members = field(line, 3).to_owned();
    if members.split(',').any(|m| m == user) {
        return;
    }
    if !members.is_empty() {
        line.push(',');
    }
    line.push_str(user);
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn field(line: &str, index: usize) -> &str {
    line.split(':').nth(index).unwrap_or_default()
}

fn number(line: &str) -> Option<u32> {
    field(line, 2).parse().ok()
}

fn find<'a>(lines: &'a [String], name: &str) -> Option<&'a String> {
    lines.iter().find(|line| field(line, 0) == name)
}

/// The name of whoever has this number.
fn owner(lines: &[String], id: u32) -> Option<&str> {
    lines.iter().find(|line| number(line) == Some(id)).map(|line| field(line, 0))
}

fn put(
    edit: &mut TreeEdit,
    path: &str,
    lines: &[String],
    epoch: i64,
    batch: &Batch,
) -> Result<(), AccountError> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let place = resolve(edit.tree(), path.as_bytes(), true)?;
    let meta = edit.tree().get(&place).and_then(Node::meta).cloned();
    let meta = Meta { mtime: epoch, ..meta.unwrap_or_else(|| root_meta(0o644, epoch)) };
    edit.ensure_parent(&place, epoch)?;
    edit.put(&place, Node::File(meta, content::of_bytes(batch, text.as_bytes())?))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: Option<u32>, groups: &[&str]) -> UserSpec {
        UserSpec {
            name: name.into(),
            uid,
            gid: None,
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            home: Some("/srv".into()),
            shell: Some("/bin/sh".into()),
        }
    }

    fn accounts() -> Accounts {
        Accounts {
            passwd: lines("root:x:0:0:root:/root:/bin/sh\n_apt:x:100:65534::/nonexistent:/x\n"),
            group: lines("root:x:0:\nadm:x:4:\ncrontab:x:101:\n"),
            shadow: lines("root:*:1:0:99999:7:::\n"),
            gshadow: lines("root:*::\nadm:*::\n"),
        }
    }

    #[test]
    fn a_new_user_gets_a_number_that_is_nobodys() {
        let mut all = accounts();
        all.add(&user("app", None, &["adm"])).unwrap();
        assert_eq!(all.passwd[2], "app:x:102:102::/srv:/bin/sh");
        assert_eq!(all.group[1..], ["adm:x:4:app", "crontab:x:101:", "app:x:102:"]);
        assert_eq!((all.shadow[1].as_str(), all.gshadow[2].as_str()), ("app:!:::::::", "app:!::"));
        assert_eq!(all.gshadow[1], "adm:*::app");
        all.add(&user("app", Some(102), &["adm"])).unwrap();
        assert_eq!((all.passwd.len(), all.group[1].as_str()), (3, "adm:x:4:app"));
        all.add(&UserSpec { home: None, shell: None, ..user("bare", Some(103), &[]) }).unwrap();
        assert_eq!(all.passwd[3], "bare:x:103:103::/nonexistent:/usr/sbin/nologin");
    }

    #[test]
    fn numbers_and_groups_of_others_are_refused() {
        let said = |user: UserSpec| accounts().add(&user).unwrap_err();
        assert_eq!(said(user("app", Some(100), &[])), "number 100 is that of user `_apt`");
        assert!(said(user("app", Some(4), &[])).starts_with("number 4 is that of group `adm`"));
        assert_eq!(said(user("root", Some(5), &[])), "the image has it as number 0");
        let root = || UserSpec { home: None, shell: None, ..user("root", Some(0), &[]) };
        assert_eq!(said(UserSpec { gid: Some(7), ..root() }), "the image has it in the group with number 0");
        assert_eq!(
            said(UserSpec { home: Some("/x".into()), ..root() }),
            "the image has it with the home directory /root"
        );
        assert_eq!(
            said(UserSpec { shell: Some("/x".into()), ..root() }),
            "the image has it with the shell /bin/sh"
        );
        let all =
            UserSpec { gid: Some(0), home: Some("/root".into()), shell: Some("/bin/sh".into()), ..root() };
        assert!([root(), all].iter().all(|same| accounts().add(same).is_ok()));
        assert_eq!(said(user("app", None, &["wheel"])), "there is no group `wheel`");
    }
}
