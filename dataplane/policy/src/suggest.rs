//! Finds what the author meant: the valid word that is nearest to an unknown one.

/// The word of `valid` that is nearest to `word`, if any is near enough to be meant; case does not count.
pub(crate) fn nearest<'a>(word: &str, valid: &[&'a str]) -> Option<&'a str> {
    if word.len() > WORD_LEN_MAX {
        return None;
    }
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let distances = valid.iter().map(|candidate| {
        let letters: Vec<char> = candidate.to_lowercase().chars().collect();
        (edits(&word, &letters), *candidate)
    });
    // Short words have neighbours that mean something else: `Role` is no `Node`.
    let near = distances.filter(|(edits, candidate)| *edits <= candidate.len() / 4);
    near.min().map(|(_, candidate)| candidate)
}

/// Edits between two words: insert, delete, replace, swap neighbours.
fn edits(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for row in 1..=left.len() {
        let mut current = vec![row];
        for column in 1..=right.len() {
            let replaced = above[column - 1] + usize::from(left[row - 1] != right[column - 1]);
            let mut best = replaced.min(above[column] + 1).min(current[column - 1] + 1);
            let is_swap = row > 1
                && column > 1
                && left[row - 1] == right[column - 2]
                && left[row - 2] == right[column - 1];
            if is_swap {
                best = best.min(before[column - 2] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

const WORD_LEN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_other_cases_find_their_word() {
        let words = ["podSelector", "namespaceSelector", "ipBlock", "Node"];
        for (word, meant) in [
            ("podselector", Some("podSelector")),
            ("podSelektor", Some("podSelector")),
            ("podSelectro", Some("podSelector")),
            ("ipblok", Some("ipBlock")),
            ("node", Some("Node")),
            ("Role", None),
            ("certificate", None),
        ] {
            assert_eq!(nearest(word, &words), meant, "{word}");
        }
        assert_eq!(nearest(&"a".repeat(65), &words), None);
    }
}
