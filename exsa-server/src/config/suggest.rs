//! Suggests the allowed name for a misspelt one.

/// Maximum length of compared names.
const NAME_CHARS_MAX: usize = 64;

/// Returns the nearest of the `allowed` names if it is near enough: at most a third of its characters differ,
/// or it continues the given name.
pub(super) fn nearest<'a>(name: &str, allowed: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.chars().count() > NAME_CHARS_MAX {
        return None;
    }
    let mut beginning = None;
    let mut nearest: Option<(usize, &str)> = None;
    for other in allowed {
        let distance = distance(name, other);
        if other.starts_with(name) && name.len() > 2 {
            beginning.get_or_insert(other);
        }
        if nearest.is_none_or(|(least, _)| distance < least) {
            nearest = Some((distance, other));
        }
    }
    let near = nearest.filter(|(distance, other)| *distance <= (other.chars().count() / 3).max(1));
    near.map(|(_, other)| other).or(beginning)
}

/// Edit distance: insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let fold = |text: &str| text.replace('-', "_").to_lowercase().chars().collect::<Vec<_>>();
    let (a, b) = (fold(a), fold(b));
    let mut earlier = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut edits = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            let swapped = i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y;
            if swapped {
                let before: &Vec<usize> = &earlier;
                edits = edits.min(before[j - 1] + 1);
            }
            row.push(edits);
        }
        earlier = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_find_what_was_meant() {
        let keys = ["host", "port", "unix", "unix_mode", "insecure_no_auth"];
        for (name, meant) in [
            ("prot", Some("port")),
            ("Port", Some("port")),
            ("ports", Some("port")),
            ("unix-mode", Some("unix_mode")),
            ("insecure", Some("insecure_no_auth")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, keys), meant, "{name}");
        }
        assert_eq!(nearest(&"port".repeat(1000), keys), None);
        assert_eq!((distance("ab", "ba"), distance("", "abc"), distance("kitten", "sitting")), (1, 3, 3));
    }
}
