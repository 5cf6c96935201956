//! Paths and targets of links, which are bytes, in words and in JSON.

use std::fmt::Write as _;

use serde_json::Value;

use crate::words;

/// Sets `key` to the text of `bytes`. Where that is not all of them, because they are no UTF-8, `KEY_hex` has the bytes.
pub(super) fn set(entry: &mut Value, key: &str, bytes: &[u8]) {
    entry[key] = String::from_utf8_lossy(bytes).into();
    if str::from_utf8(bytes).is_err() {
        entry[format!("{key}_hex")] = hex(bytes).into();
    }
}

/// For people: what no terminal should obey is escaped, and a byte that is no UTF-8 is three octal digits, as `ls` has it.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&words::shown(chunk.valid()));
        for byte in chunk.invalid() {
            // Nothing keeps a string from growing.
            let _ = write!(shown, "\\{byte:03o}");
        }
    }
    shown
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_that_is_no_utf_8_can_be_had_again() {
        let entry = |bytes: &[u8]| {
            let mut entry = json!({});
            set(&mut entry, "path", bytes);
            entry
        };
        assert_eq!(entry("/größe".as_bytes()), json!({ "path": "/größe" }));
        assert_eq!(entry(b"/a\xff\n"), json!({ "path": "/a\u{fffd}\n", "path_hex": "2f61ff0a" }));
        assert_eq!(shown(b"/gr\xc3\xb6\xdfe\x1b \xe2\x82"), "/grö\\337e\\u{1b} \\342\\202");
    }
}
