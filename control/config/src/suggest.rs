//! Finds what the operator meant: the valid word that is nearest to an unknown one.

/// The word of `valid` that is nearest to `word`, if any is near enough to be meant. Case, `_` and
/// `-` do not count, so that wg-quick's `AllowedIPs` finds `allowed_ips`.
pub(crate) fn nearest<'a>(word: &str, valid: &[&'a str]) -> Option<&'a str> {
    if word.len() > WORD_LEN_MAX {
        return None;
    }
    let word = folded(word);
    valid
        .iter()
        .map(|candidate| (distance(&word, &folded(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

fn folded(word: &str) -> Vec<char> {
    word.chars()
        .filter(|letter| *letter != '_' && *letter != '-')
        .flat_map(char::to_lowercase)
        .collect()
}

/// Edits between two words: insert, delete, replace, swap neighbours (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for row in 1..=left.len() {
        let mut current = vec![row];
        for column in 1..=right.len() {
            let replaced = above[column - 1] + usize::from(left[row - 1] != right[column - 1]);
            let mut best = replaced.min(above[column] + 1).min(current[column - 1] + 1);
            let swapped = row > 1
                && column > 1
                && left[row - 1] == right[column - 2]
                && left[row - 2] == right[column - 1];
            if swapped {
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

    const KEYS: &[&str] = &[
        "allowed_ips",
        "endpoint",
        "keepalive",
        "mtu",
        "name",
        "public_key",
    ];

    #[test]
    fn slips_of_the_finger_and_other_spellings_find_their_key() {
        for (word, meant) in [
            ("alowed_ips", "allowed_ips"),
            ("AllowedIPs", "allowed_ips"),
            ("publci_key", "public_key"),
            ("Public-Key", "public_key"),
            ("endpoints", "endpoint"),
            ("mut", "mtu"),
        ] {
            assert_eq!(nearest(word, KEYS), Some(meant), "{word}");
        }
    }

    #[test]
    fn far_words_find_nothing() {
        for word in ["certificate", "", "qqq", "bandwidth"] {
            assert_eq!(nearest(word, KEYS), None, "{word}");
        }
        assert_eq!(nearest(&"name".repeat(40), KEYS), None);
    }

    #[test]
    fn a_swap_is_one_edit() {
        assert_eq!(distance(&folded("ab"), &folded("ba")), 1);
        assert_eq!(distance(&folded(""), &folded("abc")), 3);
        assert_eq!(distance(&folded("kitten"), &folded("sitting")), 3);
    }
}
