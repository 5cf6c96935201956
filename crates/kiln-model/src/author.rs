//! Who asked for something, and from where.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who asked for an operation, as the log names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Author {
    /// The user's name on the host; `kiln` if nobody asked.
    pub name: String,
    /// Where they were; none for what nobody asked for, and in logs of earlier versions.
    pub origin: Option<Origin>,
}

/// Where somebody was who asked for something.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The user, as the kernel vouches for them.
    pub uid: u32,
    /// The process, as the kernel vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The program it ran, if it could be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Where the program says it was started from, e.g. `ssh 192.0.2.7`. Nobody vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
}

impl Origin {
    /// The longest a program may say.
    pub const LONGEST: usize = 200;

    /// What a program says of where it was started, as it may be kept and shown: cut off, and without control
    /// characters. None if nothing is left.
    pub fn tame(said: &str) -> Option<String> {
        let plain = said.chars().filter(|c| !c.is_control()).take(Self::LONGEST).collect::<String>();
        let plain = plain.trim().to_owned();
        (!plain.is_empty()).then_some(plain)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program.as_deref().unwrap_or("a program that was gone");
        match &self.says {
            Some(says) => write!(f, "{says}, {program}"),
            None => write!(f, "{program}"),
        }
    }
}

impl Author {
    /// Kiln itself.
    pub fn kiln() -> Self {
        "kiln".into()
    }
}

impl From<&str> for Author {
    fn from(name: &str) -> Self {
        Self { name: name.into(), origin: None }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// As it is written: the name alone, as it always was, where there is nothing more to say.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Name(String),
    Full {
        name: String,
        #[serde(flatten)]
        origin: Origin,
    },
}

impl From<Written> for Author {
    fn from(written: Written) -> Self {
        match written {
            Written::Name(name) => Self { name, origin: None },
            Written::Full { name, origin } => Self { name, origin: Some(origin) },
        }
    }
}

impl From<Author> for Written {
    fn from(author: Author) -> Self {
        match author.origin {
            None => Self::Name(author.name),
            Some(origin) => Self::Full { name: author.name, origin },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_earlier_versions_are_read_and_what_is_known_is_kept() {
        let read = |text: &str| serde_json::from_str::<Author>(text).unwrap();
        assert_eq!(read(r#""ann""#), Author::from("ann"));
        assert_eq!(serde_json::to_string(&Author::from("ann")).unwrap(), r#""ann""#);
        let origin = Origin {
            uid: 0,
            pid: Some(7),
            program: Some("/usr/bin/kiln".into()),
            says: Some("ssh 192.0.2.7".into()),
        };
        let author = Author { name: "root".into(), origin: Some(origin.clone()) };
        let text = serde_json::to_string(&author).unwrap();
        assert_eq!(
            text,
            r#"{"name":"root","uid":0,"pid":7,"program":"/usr/bin/kiln","says":"ssh 192.0.2.7"}"#
        );
        assert_eq!(read(&text), author);
        assert_eq!(origin.to_string(), "ssh 192.0.2.7, /usr/bin/kiln");
    }

    #[test]
    fn what_a_program_says_cannot_paint_over_the_log() {
        assert_eq!(Origin::tame("ssh\u{1b}[2J 1.2.3.4\n"), Some("ssh[2J 1.2.3.4".into()));
        assert_eq!(Origin::tame(" \n"), None);
        assert_eq!(Origin::tame(&"x".repeat(1000)).unwrap().len(), Origin::LONGEST);
    }
}
