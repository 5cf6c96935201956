//! Amounts, moments and ids in words.

use kiln_model::{ReleaseId, Timestamp};

/// `12.3 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = n as f64;
    let mut unit = "B";
    for next in UNITS {
        if amount < 1024.0 {
            break;
        }
        (amount, unit) = (amount / 1024.0, next);
    }
    if unit == "B" { format!("{n} B") } else { format!("{amount:.1} {unit}") }
}

/// `312ms`, `4.2s`, `3m 20s`.
pub(crate) fn span(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 => format!("{:.1}s", millis as f64 / 1000.0),
        _ => format!("{}m {}s", millis / 60_000, millis % 60_000 / 1_000),
    }
}

/// A moment to the second, in UTC.
pub(crate) fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    match text.get(..19) {
        Some(seconds) if text.ends_with('Z') => format!("{}Z", seconds.replace('T', " ")),
        _ => text,
    }
}

/// A release where space is short; `-` for none.
pub(crate) fn release(id: Option<&ReleaseId>) -> &str {
    id.map_or("-", ReleaseId::short)
}

/// Text that an instance or an image may have chosen, so that no terminal obeys it and it stays on its line.
pub(crate) fn shown(text: &str) -> String {
    let visible = |c: char| {
        let escaped = c.is_control();
        escaped.then(|| c.escape_default()).into_iter().flatten().chain((!escaped).then_some(c))
    };
    text.chars().flat_map(visible).collect()
}

/// `1 instance`, `3 instances`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_chose_is_shown_and_not_obeyed() {
        assert_eq!(shown("größe \u{1b}[31mred\nnew\u{9b}"), "größe \\u{1b}[31mred\\nnew\\u{9b}");
    }

    #[test]
    fn amounts_and_moments() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(1536), bytes(5 << 30)],
            ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
        );
        assert_eq!([span(7), span(4_250), span(200_000)], ["7ms", "4.2s", "3m 20s"]);
        assert_eq!(moment(Timestamp(1_790_000_000_042)), "2026-09-21 14:13:20Z");
    }
}
