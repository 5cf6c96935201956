//! Columns.

/// Rows under a heading, in columns as wide as they must be, two spaces apart.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].as_str());
        cells.chain([heading[column]]).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        // Not by the formatter: its widths end at 65535.
        let pad = |(cell, width): (&&str, usize)| {
            (*cell).to_owned() + &" ".repeat(width.saturating_sub(cell.chars().count()))
        };
        let padded: Vec<String> = cells.iter().zip(widths).map(pad).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let heading = line(heading);
    let rows = rows.iter().map(|row| line(std::array::from_fn(|column| row[column].as_str())));
    std::iter::once(heading).chain(rows).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up_by_characters() {
        let rows = [["größe".to_owned(), "1".to_owned()], ["b".to_owned(), String::new()]];
        assert_eq!(super::table(["A", "NUMBER"], &rows), "A      NUMBER\ngröße  1\nb");
    }

    /// As what somebody ran inside an instance, in `kiln log`.
    #[test]
    fn a_cell_may_be_as_long_as_it_is() {
        let long = "x".repeat(70_000);
        let rows = [[long.clone(), long.clone()], ["b".to_owned(), "2".to_owned()]];
        let text = super::table(["A", "B"], &rows);
        assert!(text.contains(&format!("\n{long}  {long}\nb ")) && text.ends_with(" 2"), "{}", text.len());
    }
}
