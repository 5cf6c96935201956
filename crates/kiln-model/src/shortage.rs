//! What an instance has too little of, and goes on all the same.

use serde::{Deserialize, Serialize};

use crate::Volatile;

/// What was wanting when it was last looked, which is about once a second for some instances, and at their end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shortage {
    /// Volatile paths that were full.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub full: Vec<Volatile>,
    /// How many processes and threads it may have, if it has ever been refused one more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
}

impl Shortage {
    /// Part of a sentence about the instance; nothing if nothing is wanting.
    pub fn words(&self) -> Option<String> {
        let full = (!self.full.is_empty()).then(|| format!("no space is left on {}", places(&self.full)));
        let most = |most| format!("it was refused more than the {most} processes it may have");
        match (full, self.processes.map(most)) {
            (Some(full), Some(most)) => Some(format!("{full}; {most}")),
            (one, other) => one.or(other),
        }
    }
}

/// Volatile paths, as they are named in a sentence.
pub(crate) fn places(full: &[Volatile]) -> String {
    let paths: Vec<String> = full.iter().map(|v| format!("{} ({})", v.path, v.size)).collect();
    paths.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ByteSize;

    #[test]
    fn everything_that_is_wanting_is_said() {
        let full = vec![Volatile::new("/data", ByteSize(16 << 20))];
        let words = |shortage: &Shortage| shortage.words().unwrap_or_default();
        assert_eq!(Shortage::default().words(), None);
        let mut shortage = Shortage { full, processes: None };
        assert_eq!(words(&shortage), "no space is left on /data (16MiB)");
        shortage.processes = Some(60);
        let both = "no space is left on /data (16MiB); it was refused more than the 60 processes it may have";
        assert_eq!(words(&shortage), both);
        let told = serde_json::to_value(&shortage).unwrap();
        assert_eq!(serde_json::from_value::<Shortage>(told).unwrap(), shortage);
        assert_eq!(serde_json::from_str::<Shortage>("{}").unwrap(), Shortage::default());
    }
}
