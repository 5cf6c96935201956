//! `[image.NAME]`: defaults, paths, and what an image may start from.

use std::collections::BTreeMap;

use super::{Place, Problems, check, contents, packages, parse, parse_or, paths};
use crate::spec::{Base, BuildNetwork, ImageFile, ImageSpec, SizedVolatileFile, VolatileFile};
use crate::{ByteSize, Millis, Volatile, signal};

const MIB: u64 = 1 << 20;

/// What is writable in every instance, because almost every program takes it for granted.
const ALWAYS_VOLATILE: [(&str, u64); 3] = [("/tmp", 16 * MIB), ("/run", 4 * MIB), ("/var/tmp", 16 * MIB)];

/// What a volatile path may be given, one page to what no host has.
const LEAST_VOLATILE: ByteSize = ByteSize(4 << 10);
const MOST_VOLATILE: ByteSize = ByteSize(1 << 40);

/// An image; `port` is where instances of it listen, if the services made from it agree.
pub(super) fn image(
    file: &ImageFile,
    port: Option<u16>,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> Option<ImageSpec> {
    let base = base(&file.from, &place.key("from"), problems);
    packages::packages(file, base.as_ref(), place, problems);
    let over_image = matches!(base, Some(Base::Oci(_) | Base::Handmade(_)));
    run(file, over_image || base.is_none(), place, problems);
    environment(&file.env, &place.key("env"), problems);
    let workdir = file.workdir.as_deref().or((!over_image).then_some("/"));
    let contents = contents::contents(file, place, problems);
    let checks = file.check.iter().enumerate();
    Some(ImageSpec {
        packages: packages::without_repetition(&file.packages),
        suites: packages::suites(file, base.as_ref(), &place.key("suites"), problems),
        recommends: file.recommends.unwrap_or(false),
        files: contents.files,
        dirs: contents.dirs,
        links: contents.links,
        users: contents.users,
        build: contents.build,
        build_network: build_network(file, place, problems),
        run: file.run.clone().unwrap_or_default(),
        user: user(file, over_image, &place.key("user"), problems),
        env: file.env.clone(),
        workdir: workdir.map(|w| paths::absolute(w, &place.key("workdir"), problems)),
        stop_signal: stop_signal(file, over_image, &place.key("stop_signal"), problems),
        stop_grace: parse_or(file.stop_grace.as_ref(), Millis(10_000), &place.key("stop_grace"), problems),
        volatile: volatile(file, &place.key("volatile"), problems),
        checks: checks
            .filter_map(|(i, c)| check::check(c, port, &place.key("check").item(i), problems))
            .collect(),
        base: base?,
    })
}

fn build_network(file: &ImageFile, place: &Place, problems: &mut Problems<'_, '_>) -> BuildNetwork {
    if file.build_network == Some(true) && file.build.is_empty() {
        let place = place.key("build_network");
        problems.value(&place, "there is no build that could use a network").expected("`build`, or not this");
    }
    if file.build_network == Some(true) { BuildNetwork::Host } else { BuildNetwork::None }
}

fn base(from: &str, place: &Place, problems: &mut Problems<'_, '_>) -> Option<Base> {
    match from.split_once(':') {
        None if from == "scratch" => return Some(Base::Scratch),
        Some(("debian", suite)) if packages::is_suite(suite) => {
            return Some(Base::Debian { suite: suite.into() });
        }
        Some(("oci", reference)) => return parse(reference, place, problems).map(Base::Oci),
        Some(("image", name)) => return parse(name, place, problems).map(Base::Handmade),
        _ => {
            let kind = Some(from.split(':').next().unwrap_or_default()).filter(|kind| *kind != "debian");
            problems
                .value(place, format!("an image cannot start from `{from}`"))
                .expected(
                    "`debian:SUITE` like `debian:bookworm`, `oci:` and a path or reference, `image:` and the name of \
                     a handmade image, or `scratch`",
                )
                .nearest(kind.unwrap_or_default(), ["debian", "scratch", "oci", "image"]);
        }
    }
    None
}

/// The main process: it must be said, unless an OCI image may say it.
fn run(file: &ImageFile, may_lack: bool, place: &Place, problems: &mut Problems<'_, '_>) {
    match &file.run {
        Some(run) => program(run, &place.key("run"), problems),
        None if may_lack => {}
        None => {
            problems
                .value(place, format!("`{place}` has no `run`"))
                .expected("a line like `run = [\"/usr/sbin/nginx\",\"-g\",\"daemon off;\"]`");
        }
    }
}

pub(super) fn program(run: &[String], place: &Place, problems: &mut Problems<'_, '_>) {
    match run.first() {
        None => {
            problems.value(place, format!("`{place}` is empty")).expected("a program and its arguments");
        }
        Some(program) if !program.starts_with('/') => {
            problems
                .value(&place.item(0), format!("`{}` is not an absolute path", program.escape_debug()))
                .expected(
                    "the program's path in the image, like `/usr/sbin/nginx` (there is no shell to find it)",
                );
        }
        Some(_) => {}
    }
    for (index, argument) in run.iter().enumerate() {
        if argument.contains('\0') {
            problems.value(&place.item(index), "an argument has a NUL byte");
        }
    }
}

/// The names and values `execve` can pass on.
pub(super) fn environment(env: &BTreeMap<String, String>, place: &Place, problems: &mut Problems<'_, '_>) {
    for (name, value) in env {
        let place = place.key(name);
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = format!("`{}` is not the name of a variable", name.escape_debug());
            problems.key(&place, message).expected("a name without `=`");
        }
        if value.contains('\0') {
            problems.value(&place, format!("`{place}` has a NUL byte"));
        }
    }
}

fn user(
    file: &ImageFile,
    over_image: bool,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> Option<String> {
    let name = file.user.as_deref().or((!over_image).then_some("root"))?;
    if name.is_empty() || name.contains([':', '/', '\n', '\0', ' ']) {
        problems
            .value(place, format!("`{}` is not the name of a user", name.escape_debug()))
            .expected("a name from the image's own /etc/passwd, like `www-data`");
    }
    check::id(name, place, problems);
    Some(name.to_owned())
}

fn stop_signal(
    file: &ImageFile,
    over_image: bool,
    place: &Place,
    problems: &mut Problems<'_, '_>,
) -> Option<i32> {
    let name = file.stop_signal.as_deref().or((!over_image).then_some("SIGTERM"))?;
    let number = signal::number(name);
    if number.is_none() {
        let names: Vec<String> = signal::names().map(|n| format!("`{n}`")).collect();
        problems
            .value(place, format!("`{name}` is no signal to end with"))
            .expected(format!("one of {}", names.join(", ")))
            .nearest(name, signal::names());
    }
    number
}

fn volatile(file: &ImageFile, place: &Place, problems: &mut Problems<'_, '_>) -> Vec<Volatile> {
    let always = ALWAYS_VOLATILE.into_iter().map(|(path, size)| Volatile::new(path, ByteSize(size)));
    let mut all: BTreeMap<String, Volatile> = always.map(|v| (v.path.clone(), v)).collect();
    for (index, written) in file.volatile.iter().enumerate() {
        let place = place.item(index);
        let volatile = match written {
            VolatileFile::Path(path) => Volatile::new(path_of(path, &place, problems), ByteSize(16 * MIB)),
            VolatileFile::Sized(SizedVolatileFile { path, size, exec }) => {
                let size = size_of(size, &place.key("size"), problems);
                let path = path_of(path, &place.key("path"), problems);
                Volatile { path, size, exec: exec.unwrap_or(false) }
            }
        };
        all.insert(volatile.path.clone(), volatile);
    }
    all.into_values().collect()
}

/// A tmpfs of no size would be one without limit.
fn size_of(written: &str, place: &Place, problems: &mut Problems<'_, '_>) -> ByteSize {
    let size = parse(written, place, problems).unwrap_or(LEAST_VOLATILE);
    if !(LEAST_VOLATILE..=MOST_VOLATILE).contains(&size) {
        problems
            .value(place, format!("a volatile path cannot have {written}"))
            .expected("from 4KiB to 1024GiB; what is written to it counts as memory of the service, too");
    }
    size
}

fn path_of(path: &str, place: &Place, problems: &mut Problems<'_, '_>) -> String {
    let path = paths::absolute(path, place, problems);
    if path == "/" {
        problems.value(place, "the root of an image cannot be volatile").expected("a directory below it");
    } else if let Some(top) = paths::of_the_kernel(&path) {
        problems
            .value(place, format!("`{path}` cannot be volatile: what is in `{top}` comes from the kernel"));
    }
    path
}
