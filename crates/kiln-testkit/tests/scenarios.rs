//! Scenarios anyone can read: `tests/scenarios/*.txt`, played on the simulated host.

use std::path::Path;

/// Every file reads exactly as the simulated host plays it. With `KILN_UPDATE_SCENARIOS=1` files are rewritten.
#[test]
fn scenarios_read_as_they_are_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut played = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let now = kiln_testkit::sim::play(&text);
        if std::env::var_os("KILN_UPDATE_SCENARIOS").is_some() {
            std::fs::write(&path, &now).unwrap();
        } else {
            assert_eq!(now, text, "{} does not read as it plays", path.display());
        }
        played += 1;
    }
    assert!(played >= 8, "only {played} scenarios were found in {}", dir.display());
}
