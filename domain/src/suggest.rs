//! The nearest valid name, for error messages.
//!
//! It does not decide whether a name is wrong.

/// The valid name nearest to what was written, if one is near enough to be meant.
///
/// ```
/// assert_eq!(domain::suggest::nearest("d_modl", ["d_model", "n_heads"]), Some("d_model"));
/// assert_eq!(domain::suggest::nearest("zzz", ["d_model"]), None);
/// ```
pub fn nearest<'a>(written: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may differ; more than that is another word.
    let limit = (written.chars().count() / 3).max(1);
    valid
        .into_iter()
        .map(|name| (edit_distance(written, name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// The Levenshtein distance of two short texts.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_edits() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }
}
