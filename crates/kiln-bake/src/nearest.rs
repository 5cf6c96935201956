//! Names that may have been meant.

/// The up to three of `names` that look most like `wanted`, the likest first; none if nothing looks like it.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let score = |name: &str| {
        let related = !wanted.is_empty() && (name.starts_with(wanted) || wanted.starts_with(name));
        strsim::jaro_winkler(wanted, name) + if related { 0.05 } else { 0.0 }
    };
    let mut scored: Vec<_> = names.map(|n| (score(n), n)).filter(|(s, _)| *s > 0.85).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, n)| n.to_owned()).collect()
}

/// The one of `names` that was probably meant by `wanted`.
pub fn nearest_name<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    nearest(wanted, names).into_iter().next()
}

/// ` (did you mean `a` or `b`?)`, or nothing.
pub(crate) fn did_you_mean(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let quoted: Vec<_> = names.iter().map(|n| format!("`{n}`")).collect();
    format!(" (did you mean {}?)", quoted.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likest_first() {
        let names = ["nginx-light", "nginx-common", "apache2", "nginx"];
        assert_eq!(nearest("nginx-ligth", names.into_iter())[0], "nginx-light");
        assert_eq!(nearest("zzz", names.into_iter()), [""; 0]);
        assert_eq!(did_you_mean(&["a".into(), "b".into()]), " (did you mean `a` or `b`?)");
    }
}
