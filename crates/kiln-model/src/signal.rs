//! Signals by name.

/// The signals a process can be asked to end with, with their numbers on Linux (the same on every architecture
/// Kiln runs on).
const SIGNALS: [(&str, i32); 9] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGUSR2", 12),
    ("SIGTERM", 15),
    ("SIGWINCH", 28),
    ("SIGPWR", 30),
];

/// The number of a signal, by its name with or without `SIG`, in any case.
pub fn number(name: &str) -> Option<i32> {
    let upper = name.to_ascii_uppercase();
    SIGNALS.iter().find(|(known, _)| *known == upper || known[3..] == upper).map(|(_, number)| *number)
}

/// The name of a signal, if it is one of those a process can be asked to end with.
pub fn name(number: i32) -> Option<&'static str> {
    SIGNALS.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

/// All names.
pub fn names() -> impl Iterator<Item = &'static str> {
    SIGNALS.iter().map(|(name, _)| *name)
}
