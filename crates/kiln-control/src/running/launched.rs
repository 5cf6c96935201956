//! With which arguments and which environment a process was started, as far as it still shows.
//!
//! Both lie in memory of the process itself. Where they begin and end only the kernel says, at `execve`; what stands
//! there the process may write over, and programs that set a title for `ps` do: then only the length of the arguments
//! is left to be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

/// As what a process was started, in the words the kernel gives it.
#[derive(Debug)]
pub(super) enum Started {
    Program(Vec<Vec<u8>>),
    /// A script: its interpreter, what its first line gives that, and the words of the script.
    Script(Vec<Vec<u8>>),
}

impl Started {
    fn words(&self) -> &[Vec<u8>] {
        let (Self::Program(words) | Self::Script(words)) = self;
        words
    }

    /// As the kernel lays them out.
    fn arguments(&self) -> Vec<u8> {
        self.words().iter().flat_map(|word| word.iter().copied().chain([0])).collect()
    }
}

/// What a process was started with.
#[derive(Debug)]
pub(super) struct Launched {
    /// As it shows in memory.
    arguments: Vec<u8>,
    environment: Vec<u8>,
    /// How long the arguments were when it was started.
    length: u64,
}

impl Launched {
    pub(super) fn of(proc: &Path) -> io::Result<Self> {
        let stat = fs::read_to_string(proc.join("stat"))?;
        let length = length_of_arguments(&stat).ok_or(io::ErrorKind::InvalidData)?;
        let (arguments, environment) = (fs::read(proc.join("cmdline"))?, fs::read(proc.join("environ"))?);
        Ok(Self { arguments, environment, length })
    }

    /// What is not as `started` and `env` say. `given` are variables that hold secrets: whether they are there.
    ///
    /// Other words than it was started with are its own doing where it has executed the same file again, which leaves no
    /// trace: the interpreter of a script that ends in `exec`, and programs that are many, such as busybox, do. Only a
    /// program that kept its name is told of.
    pub(super) fn differs(
        &self,
        started: &Started,
        env: &BTreeMap<String, String>,
        given: &BTreeSet<&str>,
    ) -> Vec<String> {
        let (words, expected) = (started.words(), started.arguments());
        if self.arguments == expected {
            return self.environment(env, given);
        }
        let is_its_own_doing = match started {
            Started::Script(_) => true,
            Started::Program(_) if self.is_title() => self.length == expected.len() as u64,
            Started::Program(_) => words.first().is_none_or(|name| self.name() != name),
        };
        if is_its_own_doing {
            return Vec::new();
        }
        vec![
            "its main process was started with other arguments than those of its release, or has executed itself again"
                .to_owned(),
        ]
    }

    /// The value of a variable; nothing if it has none, or shows something else than it was started with.
    pub(super) fn variable(&self, started: &Started, name: &str) -> Option<&[u8]> {
        let is_as_it_was = self.arguments == started.arguments();
        is_as_it_was.then(|| self.variables().get(name.as_bytes()).copied()).flatten()
    }

    fn variables(&self) -> BTreeMap<&[u8], &[u8]> {
        let lines = self.environment.split(|c| *c == 0);
        let parts = lines.filter_map(|line| Some((line, line.iter().position(|c| *c == b'=')?)));
        parts.map(|(line, at)| (&line[..at], &line[at + 1..])).collect()
    }

    fn name(&self) -> &[u8] {
        self.arguments.split(|c| *c == 0).next().unwrap_or_default()
    }

    /// One text where there were several, or one that goes on beyond what there was.
    fn is_title(&self) -> bool {
        let end = usize::try_from(self.length).unwrap_or(usize::MAX);
        let goes_on =
            self.arguments.len() > end || self.arguments.get(end - 1).is_some_and(|last| *last != 0);
        goes_on || self.arguments[self.name().len()..].iter().all(|c| *c == 0)
    }

    /// Values are not told: they may be secrets.
    fn environment(&self, env: &BTreeMap<String, String>, given: &BTreeSet<&str>) -> Vec<String> {
        /// What every instance has, whether its release says so or not.
        const EVERYWHERE: [&str; 2] = ["HOME", "PATH"];
        let found = self.variables();
        let mut differs = Vec::new();
        for name in env.keys().map(String::as_str).chain(given.iter().copied()).collect::<BTreeSet<_>>() {
            match (found.get(name.as_bytes()), env.get(name)) {
                (None, _) => {
                    differs.push(format!("its main process was started without the variable {name}"))
                }
                (Some(found), Some(expected)) if !given.contains(name) && *found != expected.as_bytes() => {
                    differs.push(format!("its main process was started with another value of {name}"));
                }
                _ => {}
            }
        }
        let known = |name: &[u8]| {
            let name = String::from_utf8_lossy(name);
            env.contains_key(&*name) || given.contains(&*name) || EVERYWHERE.contains(&&*name)
        };
        let more = found.keys().filter(|name| !known(name)).map(|name| {
            let name = String::from_utf8_lossy(name);
            format!("its main process was started with a variable that its release does not have: {name}")
        });
        differs.extend(more);
        differs
    }
}

/// From `arg_start` to `arg_end`: fields 48 and 49, counted from behind the name, which may hold anything.
fn length_of_arguments(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace().skip(48 - 3).map(|n| n.parse::<u64>().ok());
    let (start, end) = (fields.next()??, fields.next()??);
    end.checked_sub(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched(arguments: &str, length: u64, environment: &str) -> Launched {
        Launched { arguments: arguments.into(), environment: environment.into(), length }
    }

    fn differs(launched: &Launched) -> Vec<String> {
        let started = Started::Program(vec![b"/bin/app".to_vec(), b"-v".to_vec()]);
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        launched.differs(&started, &env, &BTreeSet::from(["KEY"]))
    }

    #[test]
    fn what_it_was_started_with_is_compared() {
        let env = "HOME=/\0A=1\0KEY=x\0";
        assert_eq!(differs(&launched("/bin/app\0-v\0", 12, env)), [""; 0]);
        let said = |launched: &Launched| differs(launched).join("\n");
        assert!(
            said(&launched("/bin/app\0-w\0", 12, env)).contains("other arguments than those of its release")
        );
        assert!(said(&launched("/bin/app\0-vv\0", 13, env)).contains("other arguments"));
        assert_eq!(differs(&launched("httpd\0-f\0", 9, env)), [""; 0]);
        assert!(said(&launched("/bin/app\0-v\0", 12, "A=2\0KEY=x\0")).contains("another value of A"));
        assert!(said(&launched("/bin/app\0-v\0", 12, "A=1\0")).contains("without the variable KEY"));
        let more = said(&launched("/bin/app\0-v\0", 12, "A=1\0KEY=x\0LD_PRELOAD=/x\0"));
        assert!(more.ends_with("does not have: LD_PRELOAD") && !more.contains("/x"), "{more}");
    }

    #[test]
    fn a_variable_is_known_while_the_arguments_are_what_they_were() {
        let started = Started::Program(vec![b"/bin/app".to_vec(), b"-v".to_vec()]);
        let value = |launched: &Launched| launched.variable(&started, "KEY").map(<[u8]>::to_vec);
        assert_eq!(value(&launched("/bin/app\0-v\0", 12, "A=1\0KEY=x=y\0")), Some(b"x=y".to_vec()));
        assert_eq!(value(&launched("/bin/app\0-v\0", 12, "A=1\0")), None);
        assert_eq!(value(&launched("app: main\0\0\0", 12, "KEY=x\0")), None);
    }

    #[test]
    fn a_title_is_no_difference_unless_the_length_is() {
        assert_eq!(differs(&launched("app: main process /bin/app -v", 12, "garbage")), [""; 0]);
        assert_eq!(differs(&launched("app: main\0\0\0", 12, "garbage")), [""; 0]);
        assert_eq!(differs(&launched("app: main process /bin/app -v", 11, "")).len(), 1);
    }

    #[test]
    fn this_process_is_understood() {
        let me = Launched::of(Path::new("/proc/self")).unwrap();
        let started = Started::Program(std::env::args().map(String::into_bytes).collect());
        let env: BTreeMap<String, String> = std::env::vars().collect();
        assert_eq!(me.differs(&started, &env, &BTreeSet::new()), [""; 0]);
        assert_eq!(length_of_arguments("1 (a) b) S 0"), None);
    }
}
