//! A copy of an example that a test may edit.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The copy; gone when dropped.
pub(crate) struct Project {
    dir: TempDir,
    path: String,
}

impl Project {
    /// A directory with nothing in it.
    pub(crate) fn empty() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let path = dir.path().to_str().expect("a path in UTF-8").to_owned();
        Self { dir, path }
    }

    /// A copy of `examples/NAME`, without its lock.
    pub(crate) fn example(name: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        copy(&from, dir.path());
        let path = dir.path().to_str().expect("a path in UTF-8").to_owned();
        Self { dir, path }
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &str {
        &self.path
    }

    /// Writes one of its files.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).expect("a file can be written");
    }

    /// Replaces a text that stands in one of its files.
    pub(crate) fn edit(&self, name: &str, old: &str, new: &str) {
        let text = std::fs::read_to_string(self.dir.path().join(name)).expect("a file");
        assert!(text.contains(old), "{name} has no `{old}`");
        self.write(name, &text.replace(old, new));
    }

    /// Replaces the line of one of its files that begins with `start`.
    pub(crate) fn edit_line(&self, name: &str, start: &str, line: &str) {
        let text = std::fs::read_to_string(self.dir.path().join(name)).expect("a file");
        let old = text
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("{name} has no `{start}`"));
        self.write(name, &text.replace(old, line));
    }

    /// Writes more behind what one of its files holds.
    pub(crate) fn append(&self, name: &str, more: &str) {
        let text = std::fs::read_to_string(self.dir.path().join(name)).expect("a file");
        self.write(name, &(text + more));
    }

    /// Puts a text on its page.
    pub(crate) fn say(&self, text: &str) {
        self.write("site/index.html", &format!("<h1>hello {text}</h1>\n"));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory can be made");
    for entry in std::fs::read_dir(from).expect("the example").map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && !name.to_string_lossy().starts_with('.') {
            copy(&path, &to.join(name));
        } else if path.is_file() && name != "kiln.lock" {
            std::fs::copy(&path, to.join(name)).expect("a file can be copied");
        }
    }
}
