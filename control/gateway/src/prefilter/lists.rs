//! Block lists: files of prefixes, each with the version that is in force.

use std::path::{Path, PathBuf};

use patronus_api::BlockListView;
use patronus_ebpf::{Prefix, SourceVerdict, Sources};

/// The lists, in the order of the configuration.
#[derive(Debug, Default)]
pub struct BlockLists {
    lists: Vec<BlockList>,
}

#[derive(Debug)]
struct BlockList {
    /// As the operator wrote it.
    file: PathBuf,
    /// What is in force.
    sources: Sources,
    /// Why the last load was refused.
    refused: Option<String>,
}

impl BlockLists {
    /// Reads every file. One that is refused keeps its previous version, and the log says file, line and fix.
    pub fn read(&mut self, base: &Path, files: &[PathBuf]) {
        let mut before = std::mem::take(&mut self.lists);
        for file in files {
            let at = before.iter().position(|list| list.file == *file);
            let old = at.map(|at| before.swap_remove(at));
            let path = base.join(file);
            let list = match read(&path) {
                Ok(sources) => BlockList {
                    file: file.clone(),
                    sources,
                    refused: None,
                },
                Err(why) => {
                    let kept = match &old {
                        Some(old) => {
                            format!("its previous {} entries stay in force", old.sources.len())
                        }
                        None => "nothing of it is in force".to_owned(),
                    };
                    tracing::error!("pre-filter: {why}; {kept}");
                    BlockList {
                        file: file.clone(),
                        sources: old.map(|old| old.sources).unwrap_or_default(),
                        refused: Some(why),
                    }
                }
            };
            self.lists.push(list);
        }
    }

    /// All prefixes that are in force.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        let entries = self.lists.iter().flat_map(|list| list.sources.entries());
        entries.map(|(prefix, _)| *prefix)
    }

    /// What the API tells of them.
    pub fn views(&self) -> Vec<BlockListView> {
        let view = |list: &BlockList| {
            let entries = list.sources.entries();
            let v4 = entries.iter().filter(|(prefix, _)| prefix.addr().is_ipv4());
            let prefixes_v4 = v4.count();
            BlockListView {
                file: list.file.to_string_lossy().into_owned(),
                prefixes_v4,
                prefixes_v6: entries.len() - prefixes_v4,
                refused: list.refused.clone(),
            }
        };
        self.lists.iter().map(view).collect()
    }
}

fn read(path: &Path) -> Result<Sources, String> {
    // A pipe would hold the reader up until somebody writes to it.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let path = path.display();
        return Err(format!("the block list {path} is not a regular file"));
    }
    let mut sources = Sources::new();
    let added = sources.add_file(path, SourceVerdict::Blocked);
    added.map_err(|error| error.to_string())?;
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_file_keeps_its_previous_version_and_names_the_line() {
        let base = tempfile::tempdir().unwrap();
        let files = ["a.txt", "b.txt"].map(PathBuf::from);
        std::fs::write(base.path().join("a.txt"), "203.0.113.0/24\n2001:db8::/32\n").unwrap();
        std::fs::write(base.path().join("b.txt"), "# none yet\n").unwrap();
        let mut lists = BlockLists::default();
        lists.read(base.path(), &files);
        assert_eq!(lists.prefixes().count(), 2);

        std::fs::write(base.path().join("a.txt"), "198.51.100.0/24\n10.0.0.0/33\n").unwrap();
        std::fs::write(base.path().join("b.txt"), "192.0.2.1\n").unwrap();
        lists.read(base.path(), &files);
        let shown: Vec<String> = lists.prefixes().map(|it| it.to_string()).collect();
        assert_eq!(shown, ["203.0.113.0/24", "2001:db8::/32", "192.0.2.1/32"]);
        let views = lists.views();
        assert_eq!((views[0].prefixes_v4, views[0].prefixes_v6), (1, 1));
        let why = views[0].refused.as_deref().unwrap();
        assert!(why.contains("a.txt:2: "), "{why}");
        assert_eq!(views[1].refused, None);

        std::fs::write(base.path().join("a.txt"), "").unwrap();
        lists.read(base.path(), &files[..1]);
        assert_eq!(
            lists.prefixes().count(),
            0,
            "one is empty, one not wanted any more"
        );
        assert_eq!(lists.views()[0].refused, None);
    }

    #[test]
    fn what_is_no_file_holds_nothing_up() {
        let base = tempfile::tempdir().unwrap();
        let pipe = base.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let mut lists = BlockLists::default();
        lists.read(
            base.path(),
            &[PathBuf::from("pipe"), PathBuf::from("absent")],
        );
        let views = lists.views();
        assert!(views.iter().all(|view| view.refused.is_some()), "{views:?}");
    }
}
