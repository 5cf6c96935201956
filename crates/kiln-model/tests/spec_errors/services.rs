//! What is wrong with what a service of a bad spec asks for.

use crate::{and, with};

#[test]
fn capabilities_are_those_that_count_for_something() {
    let found = and("capabilities = [\"NET_ADMIN\", \"set_uid\", \"CHOWN\", \"CAP_CHOWN\"]\n");
    let lines: Vec<&str> = found.lines().step_by(2).collect();
    assert_eq!(lines.len(), 3, "{found}");
    assert!(lines[0].starts_with("kiln.toml:10:17: `NET_ADMIN` would have no effect"), "{found}");
    assert!(lines[0].contains("expected `CHOWN`, `DAC_OVERRIDE`,"), "{found}");
    assert!(lines[1].contains("there is no capability `set_uid`"), "{found}");
    assert!(lines[1].ends_with("did you mean `SETUID`?"), "{found}");
    assert!(lines[2].contains("`CHOWN` is named twice"), "{found}");
}

#[test]
fn limits_on_reading_are_some_and_not_nothing() {
    assert!(and("io = {}\n").contains("nothing is limited by it; expected `read = \"20MiB\"`"));
    assert!(and("io = { read = \"1KiB\", reads = 0 }\n").contains("nothing starts with so little"));
    assert!(and("io = { write = \"1MiB\" }\n").contains("unknown key `write`"));
}

#[test]
fn a_handmade_image_brings_what_it_has() {
    let found = with("debian:bookworm\"", "image:fixed\"\npackages = [\"nginx\"]");
    assert!(found.contains("packages cannot be added to it"), "{found}");
    assert!(with("debian:bookworm", "image:Not A Name").contains("kiln.toml:4:8"));
}
