//! What is put into an image beside its packages: `files`, `dirs`, `links`, `users`, `build`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A file or directory of the project and its place in the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyFile {
    /// The file, or the directory with all that is in it, relative to `kiln.toml`.
    #[schemars(example = &"site/")]
    pub src: String,
    /// Its absolute path in the image; of a file, with a slash at its end, that of the directory it is put into.
    #[schemars(example = &"/srv/www")]
    pub dst: String,
    /// Permission bits of its files, in octal; 0644, or 0755 for what may be executed, if absent.
    #[schemars(example = &"0640")]
    pub mode: Option<String>,
    /// Who owns it, `user` or `user:group`; `root:root` if absent.
    #[schemars(example = &"www-data:adm")]
    pub owner: Option<String>,
}

/// A directory of the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DirFile {
    /// An absolute path; it belongs to root and has mode 0755.
    Path(#[schemars(example = &"/srv/data")] String),
    /// An absolute path, with mode and owner.
    Owned(OwnedDirFile),
}

/// A directory of the image, with mode and owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnedDirFile {
    /// Absolute path.
    #[schemars(example = &"/srv/data")]
    pub path: String,
    /// Its mode in octal; 0755 if absent.
    #[schemars(example = &"0750")]
    pub mode: Option<String>,
    /// Who owns it, `user` or `user:group`; `root:root` if absent.
    #[schemars(example = &"app:app")]
    pub owner: Option<String>,
}

/// A symbolic link of the image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkFile {
    /// Absolute path of the link.
    #[schemars(example = &"/usr/local/bin/app")]
    pub path: String,
    /// Where it leads: an absolute path in the image, or one relative to the link.
    #[schemars(example = &"/opt/app/bin/app")]
    pub to: String,
}

/// A user of the image. One that the image has already (from a package, or where it starts from) must be as it is said
/// here, and is put into `groups`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserFile {
    /// Its name.
    #[schemars(example = &"app")]
    pub name: String,
    /// Its number; the first that is free from 100 on if absent.
    #[schemars(example = &1000)]
    pub uid: Option<u32>,
    /// The number of its group, which has its name; that of the user if absent.
    #[schemars(example = &1000)]
    pub gid: Option<u32>,
    /// Further groups it is in, which the image has.
    #[serde(default)]
    #[schemars(example = vec!["adm"])]
    pub groups: Vec<String>,
    /// Its home directory, which is not made by this; `/nonexistent` if absent.
    #[schemars(example = &"/srv/app")]
    pub home: Option<String>,
    /// Its shell; `/usr/sbin/nologin` if absent.
    #[schemars(example = &"/bin/sh")]
    pub shell: Option<String>,
}

/// A command of the build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum BuildFile {
    /// A line for the image's `/bin/sh`, with `-e`.
    Line(#[schemars(example = &"make -C /usr/src/app install")] String),
    /// A program and its arguments, without a shell.
    Program(#[schemars(example = vec!["/usr/bin/make", "install"])] Vec<String>),
}
