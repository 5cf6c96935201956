//! Bakes packages of the host's Debian suite into a store, and says how long each part took.
//!
//! `bake STORE PROJECT PACKAGE… [-- SRC:DST…]`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use kiln_bake::{BakeOrder, Base, FileSpec, Report, Sources, Update, bake, lock};
use kiln_model::{Failure, Lock, Millis, Progress};
use kiln_store::Store;

struct Ends;

impl Report for Ends {
    fn progress(&self, p: Progress) {
        if p.finished {
            eprintln!("{}: {} {}", p.task, p.done, p.unit);
        }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

fn order(project: PathBuf, packages: Vec<String>, files: &[String]) -> BakeOrder {
    let file = |f: &String| {
        let (src, dst) = f.split_once(':').expect("SRC:DST");
        FileSpec { src: src.into(), dst: dst.into(), mode: None, owner: None }
    };
    BakeOrder {
        image: "web".parse().expect("a name"),
        project,
        from: Base::Debian { suite: "bookworm".into() },
        packages,
        suites: Vec::new(),
        recommends: false,
        files: files.iter().map(file).collect(),
        dirs: Vec::new(),
        links: Vec::new(),
        users: Vec::new(),
        build: Vec::new(),
        run: vec!["/bin/sh".into()],
        user: Some("www-data".into()),
        env: Default::default(),
        workdir: None,
        stop_signal: None,
        stop_grace: Millis(10_000),
        volatile: Vec::new(),
        sources: Sources::default(),
        architecture: "amd64".into(),
    }
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut parts = arguments.split(|a| a == "--");
    let head = parts.next().unwrap_or_default();
    let [store, project, packages @ ..] = head else {
        panic!("bake STORE PROJECT PACKAGE… [-- SRC:DST…]")
    };
    let begun = Instant::now();
    let store = Store::open(store.as_ref()).expect("a store");
    let order = order(project.into(), packages.to_vec(), parts.next().unwrap_or_default());
    let path = order.project.join("kiln.lock");
    let old = std::fs::read_to_string(&path).ok().map(|t| Lock::from_toml(&t).expect("a lock"));
    let new = lock(std::slice::from_ref(&order), old.as_ref(), &Update::Nothing, &store, &Ends)?;
    if old.as_ref() != Some(&new) {
        std::fs::write(&path, new.to_toml()).expect("kiln.lock");
    }
    let locked = begun.elapsed();
    let baked = bake(&order, &new, &store, &Ends)?;
    println!("{} {} paths, reused: {}", baked.record.digest, baked.record.entries, baked.reused);
    println!("lock {locked:.1?}, bake {:.1?}", begun.elapsed() - locked);
    println!("metadata {}", store.handle(&baked.record.digest).expect("a handle").metadata.display());
    Ok(())
}

fn main() -> ExitCode {
    let Err(failure) = run() else { return ExitCode::SUCCESS };
    eprintln!("error: {failure}");
    failure.causes.iter().for_each(|c| eprintln!("  because {c}"));
    failure.hint.iter().for_each(|h| eprintln!("  hint: {h}"));
    ExitCode::from(failure.code as u8)
}
