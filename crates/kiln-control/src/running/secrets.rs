//! The secrets a process was given, held against the versions that its release holds. What is told names secrets,
//! and never a value.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use kiln_bake::inspect::Ids;
use kiln_model::{AppName, ReleaseService, SecretName, SecretValue, SecretVersion};
use rustix::fs::{Dir, FileType, OFlags, fstat};

use super::Running;

/// Where they are, inside.
const DIRECTORY: &str = "/run/secrets";
/// Of their files.
const MODE: u32 = 0o400;

/// Values that were found to be of a version: to find that out takes a tenth of a second, and the instances of a
/// service have the same.
#[derive(Debug, Default)]
pub(crate) struct KnownSecrets(BTreeMap<(AppName, SecretName, SecretVersion), SecretValue>);

impl KnownSecrets {
    /// Whether `found` is the value of a version of a secret. The store is not asked: its key may be gone.
    fn is(&mut self, app: &AppName, name: &SecretName, version: &SecretVersion, found: Vec<u8>) -> bool {
        let Ok(found) = SecretValue::new(found) else { return false };
        let key = (app.clone(), name.clone(), version.clone());
        let is_it =
            self.0.get(&key) == Some(&found) || kiln_store::version_of_secret(app, name, &found) == *version;
        if is_it {
            self.0.insert(key, found);
        }
        is_it
    }
}

impl Running {
    /// What of its secrets is not as `service` of `app` says.
    pub(crate) fn other_secrets(
        &self,
        app: &AppName,
        service: &ReleaseService,
        known: &mut KnownSecrets,
    ) -> Vec<String> {
        let mut differs = Vec::new();
        let started = self.started_as(&service.run.argv);
        for (name, pinned) in &service.secrets {
            let mut is = |found: Vec<u8>| known.is(app, name, &pinned.version, found);
            match self.secret(name).map(&mut is) {
                Ok(true) => {}
                Ok(false) => differs.push(format!(
                    "the file of secret {name} does not hold the version that its release has"
                )),
                Err(why) => differs.push(format!("the file of secret {name} cannot be read: {why}")),
            }
            let readers = self.readers_of_secret(name, service).into_iter().flatten();
            differs.extend(readers.map(|other| format!("the file of secret {name} {other}")));
            let Some((variable, started)) = pinned.env.as_ref().zip(started.as_ref()) else { continue };
            // That one is missing is told with the other variables.
            if self.launched.variable(started, variable).is_some_and(|found| !is(found.to_vec())) {
                differs.push(format!(
                    "its main process was started with another version of secret {name}, in the variable {variable}"
                ));
            }
        }
        differs.extend(
            self.more_secrets(service)
                .into_iter()
                .flatten()
                .map(|name| format!("{DIRECTORY} has a file that is no secret of its release: {name}")),
        );
        differs
    }

    /// What is among the files of secrets beside them. One that cannot be looked through has been told of with them.
    fn more_secrets(&self, service: &ReleaseService) -> io::Result<Vec<String>> {
        if service.secrets.is_empty() {
            return Ok(Vec::new());
        }
        let entries = Dir::new(self.file(DIRECTORY.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY)?)?;
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
        let is_known = |name: &String| {
            matches!(name.as_str(), "." | "..") || service.secrets.keys().any(|known| known.as_str() == name)
        };
        Ok(names.filter(|name| !is_known(name)).collect())
    }

    /// What of its mode and owner would let others read it than its service does.
    fn readers_of_secret(&self, name: &SecretName, service: &ReleaseService) -> io::Result<Vec<String>> {
        let file = self.file(format!("{DIRECTORY}/{name}").as_bytes(), OFlags::PATH | OFlags::NOFOLLOW)?;
        let found = fstat(&file)?;
        let (mode, run) = (found.st_mode & 0o7777, &service.run);
        let mut differs = Vec::new();
        if mode != MODE {
            differs.push(format!("has mode {mode:04o} and not {MODE:04o}"));
        }
        for (what, map, inside, outside) in [
            ("user", &self.ids.users, run.uid, found.st_uid),
            ("group", &self.ids.groups, run.gid, found.st_gid),
        ] {
            if Ids::outside(map, inside) != Some(outside) {
                differs.push(format!("does not belong to {what} {inside} of its service"));
            }
        }
        Ok(differs)
    }

    /// What the file of a secret holds; a byte more than a value may have shows that it is none.
    fn secret(&self, name: &SecretName) -> io::Result<Vec<u8>> {
        let path = format!("{DIRECTORY}/{name}");
        // What is there may be a pipe that nobody writes into.
        let file = self.file(path.as_bytes(), OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
        if !FileType::from_raw_mode(fstat(&file)?.st_mode).is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut value = Vec::with_capacity(SecretValue::MOST + 1);
        File::from(file).take(SecretValue::MOST as u64 + 1).read_to_end(&mut value)?;
        Ok(value)
    }
}
