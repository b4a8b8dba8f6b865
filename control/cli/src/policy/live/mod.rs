//! The same questions put to the running gateway, over its local API.

mod diff;
mod explain;
mod list;

pub use diff::diff;
pub use explain::explain;
pub use list::list;

/// `file:line` as the API tells a place; the line is 0 where there is none.
fn place(source: &str) -> (String, u32) {
    let split = source.rsplit_once(':');
    let split = split.and_then(|(file, line)| Some((file.to_owned(), line.parse().ok()?)));
    split.unwrap_or_else(|| (source.to_owned(), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_and_perhaps_a_line() {
        assert_eq!(place("a:b.yaml:12"), ("a:b.yaml".to_owned(), 12));
        assert_eq!(place("a:b.yaml"), ("a:b.yaml".to_owned(), 0));
        assert_eq!(place(""), (String::new(), 0));
    }
}
