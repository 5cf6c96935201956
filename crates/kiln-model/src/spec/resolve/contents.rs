//! `files`, `dirs`, `links`, `users` and `build` of `[image.NAME]`.

use super::{Place, Problems, check, image, paths};
use crate::spec::{
    BuildFile, BuildStep, CopyFile, CopySpec, DirFile, DirSpec, ImageFile, LinkFile, LinkSpec, OwnedDirFile,
    UserFile, UserSpec,
};

const LONGEST_LINK: usize = 4095;
/// As `useradd` has it.
const LONGEST_USER: usize = 32;

/// What is put into an image beside its packages.
pub(super) struct Contents {
    pub(super) files: Vec<CopySpec>,
    pub(super) dirs: Vec<DirSpec>,
    pub(super) links: Vec<LinkSpec>,
    pub(super) users: Vec<UserSpec>,
    pub(super) build: Vec<BuildStep>,
}

pub(super) fn contents(file: &ImageFile, place: &Place, problems: &mut Problems<'_, '_>) -> Contents {
    each_user_once(&file.users, &place.key("users"), problems);
    Contents {
        files: each(&file.files, &place.key("files"), problems, copy),
        dirs: each(&file.dirs, &place.key("dirs"), problems, dir),
        links: each(&file.links, &place.key("links"), problems, link),
        users: each(&file.users, &place.key("users"), problems, user),
        build: each(&file.build, &place.key("build"), problems, step),
    }
}

fn each<F, T>(
    written: &[F],
    place: &Place,
    problems: &mut Problems<'_, '_>,
    resolve: fn(&F, &Place, &mut Problems<'_, '_>) -> T,
) -> Vec<T> {
    written.iter().enumerate().map(|(i, one)| resolve(one, &place.item(i), problems)).collect()
}

fn copy(file: &CopyFile, place: &Place, problems: &mut Problems<'_, '_>) -> CopySpec {
    CopySpec {
        src: paths::of_project(&file.src, &place.key("src"), problems),
        dst: destination(&file.dst, &place.key("dst"), problems),
        mode: mode(file.mode.as_ref(), place, problems),
        owner: owner(file.owner.as_ref(), place, problems),
    }
}

/// A slash at the end says that it is a directory, into which a file is put.
fn destination(dst: &str, place: &Place, problems: &mut Problems<'_, '_>) -> String {
    let path = seen(paths::absolute(dst, place, problems), place, problems);
    if dst.ends_with('/') && !path.ends_with('/') { path + "/" } else { path }
}

/// What the kernel's own is mounted over in every instance would be put there for nobody.
fn seen(path: String, place: &Place, problems: &mut Problems<'_, '_>) -> String {
    if let Some(top) = paths::of_the_kernel(&path) {
        problems.value(place, format!("no instance sees `{path}`: what is in `{top}` comes from the kernel"));
    }
    path
}

/// One that exists to be mounted over may be asked for.
fn directory(path: &str, place: &Place, problems: &mut Problems<'_, '_>) -> String {
    let path = paths::absolute(path, place, problems);
    if paths::of_the_kernel(&path) == Some(path.as_str()) { path } else { seen(path, place, problems) }
}

fn dir(file: &DirFile, place: &Place, problems: &mut Problems<'_, '_>) -> DirSpec {
    match file {
        DirFile::Path(path) => DirSpec { path: directory(path, place, problems), mode: None, owner: None },
        DirFile::Owned(OwnedDirFile { path, mode: bits, owner: name }) => DirSpec {
            path: directory(path, &place.key("path"), problems),
            mode: mode(bits.as_ref(), place, problems),
            owner: owner(name.as_ref(), place, problems),
        },
    }
}

fn link(file: &LinkFile, place: &Place, problems: &mut Problems<'_, '_>) -> LinkSpec {
    let to = &file.to;
    if to.is_empty() || to.len() > LONGEST_LINK || to.contains('\0') {
        problems
            .value(&place.key("to"), "nothing can lead there")
            .expected("a path of 1 to 4095 bytes without a NUL byte");
    }
    let path = seen(paths::absolute(&file.path, &place.key("path"), problems), &place.key("path"), problems);
    if path == "/" {
        problems.value(&place.key("path"), "the root of an image is a directory");
    }
    LinkSpec { path, to: to.clone() }
}

fn user(file: &UserFile, place: &Place, problems: &mut Problems<'_, '_>) -> UserSpec {
    is_user_name(&file.name, &place.key("name"), problems);
    for (i, group) in file.groups.iter().enumerate() {
        is_user_name(group, &place.key("groups").item(i), problems);
    }
    for (key, id) in [("uid", file.uid), ("gid", file.gid)] {
        // An instance has as many users as its range of ids: 65,536, the last of them nobody's.
        if id.is_some_and(|id| id >= 65_535) {
            problems.value(&place.key(key), "an image has no such number").expected("0 to 65534");
        }
    }
    let path = |text: &Option<String>, key: &str, problems: &mut Problems<'_, '_>| {
        let path = paths::absolute(text.as_deref()?, &place.key(key), problems);
        if path.contains([':', '\n']) {
            problems.value(&place.key(key), "passwd has no room for `:` or a line break");
        }
        Some(path)
    };
    UserSpec {
        name: file.name.clone(),
        uid: file.uid,
        gid: file.gid,
        groups: file.groups.clone(),
        home: path(&file.home, "home", problems),
        shell: path(&file.shell, "shell", problems),
    }
}

/// Of two lines for one name only the first would count.
fn each_user_once(users: &[UserFile], place: &Place, problems: &mut Problems<'_, '_>) {
    for (i, user) in users.iter().enumerate() {
        if users[..i].iter().any(|earlier| earlier.name == user.name) {
            let message = format!("the user `{}` is named twice", user.name.escape_debug());
            problems.value(&place.item(i).key("name"), message);
        }
    }
}

fn is_user_name(name: &str, place: &Place, problems: &mut Problems<'_, '_>) {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if !starts_well || !name.chars().all(allowed) || name.len() > LONGEST_USER {
        problems
            .value(place, format!("`{}` is not the name of a user or group", name.escape_debug()))
            .expected("1 to 32 of a-z, 0-9, - and _, starting with a letter or _");
    }
}

fn step(file: &BuildFile, place: &Place, problems: &mut Problems<'_, '_>) -> BuildStep {
    match file {
        BuildFile::Line(line) => {
            if line.trim().is_empty() || line.contains('\0') {
                problems.value(place, "there is nothing to run").expected("a line for /bin/sh");
            }
            BuildStep::Line(line.clone())
        }
        BuildFile::Program(argv) => {
            image::program(argv, place, problems);
            BuildStep::Program(argv.clone())
        }
    }
}

fn mode(text: Option<&String>, place: &Place, problems: &mut Problems<'_, '_>) -> Option<u32> {
    text.and_then(|text| check::mode(text, &place.key("mode"), problems))
}

/// `user` or `user:group`, by name or number.
fn owner(text: Option<&String>, place: &Place, problems: &mut Problems<'_, '_>) -> Option<String> {
    let text = text?;
    let good = |name: &str| !name.is_empty() && !name.contains(['/', '\n', '\0', ' ']);
    if text.split(':').count() > 2 || !text.split(':').all(good) {
        problems
            .value(&place.key("owner"), format!("`{}` is no owner", text.escape_debug()))
            .expected("`user` or `user:group`, like `www-data:adm`");
    }
    text.split(':').for_each(|id| check::id(id, &place.key("owner"), problems));
    Some(text.clone())
}
