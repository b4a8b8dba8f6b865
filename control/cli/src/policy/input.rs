//! Files, directories and standard input, read with a stated limit, and the objects that they hold.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use patronus_api::CandidateFile;
use patronus_policy::Severity;
use patronus_policy::cluster::Cluster;
use patronus_policy::diff::Side;
use patronus_policy::manifest::{Loaded, Loader};

/// What a set of paths holds.
pub struct Manifests {
    /// How many files were read.
    pub files: usize,
    /// The objects, and what is wrong with them.
    pub loaded: Loaded,
}

impl Manifests {
    /// Reads files and directories.
    ///
    /// # Errors
    /// What cannot be read. Faults in what was read are none: they are in the outcome.
    pub fn read(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let files = files(paths)?;
        let mut loader = Loader::new();
        let mut total = 0;
        for file in &files {
            let bytes = read(file, MANIFEST_BYTES_MAX)?;
            total += bytes.len();
            ensure!(
                total <= TOTAL_BYTES_MAX,
                "{}: the manifests together have more than {} MiB",
                file.display(),
                TOTAL_BYTES_MAX >> 20
            );
            loader.add(&file.display().to_string(), &bytes);
        }
        Ok(Self {
            files: files.len(),
            loaded: loader.finish(),
        })
    }

    /// The objects as a cluster.
    ///
    /// # Errors
    /// Refused objects: an answer without them would be a wrong one.
    pub fn into_cluster(self) -> anyhow::Result<Cluster> {
        let errors = self.loaded.diagnostics.iter();
        let errors: Vec<_> = errors.filter(|it| it.severity == Severity::Error).collect();
        if self.loaded.has_errors() {
            for error in errors.iter().take(ERRORS_SHOWN_MAX) {
                eprintln!("{error}");
            }
            bail!(
                "{} refused object(s) would be missing from the answer: put them right first, `patronus policy check` \
                 lists all",
                errors.len().max(1)
            );
        }
        let mut cluster = Cluster::default();
        for object in self.loaded.objects {
            cluster.apply(&object.into_change());
        }
        Ok(cluster)
    }
}

/// The files as a running gateway takes them, which judges for itself what they hold.
pub fn candidate(paths: &[PathBuf]) -> anyhow::Result<Vec<CandidateFile>> {
    let files = files(paths)?;
    let mut candidate = Vec::with_capacity(files.len());
    let mut total = 0;
    for file in &files {
        let bytes = read(file, MANIFEST_BYTES_MAX)?;
        total += bytes.len();
        ensure!(
            total <= patronus_api::REQUEST_LEN_MAX,
            "{}: the manifests together have more than the {} MiB that a gateway takes: compare two sets of files \
             instead",
            file.display(),
            patronus_api::REQUEST_LEN_MAX >> 20
        );
        let text = String::from_utf8(bytes)
            .with_context(|| format!("{}: not valid UTF-8", file.display()))?;
        let name = file.display().to_string();
        candidate.push(CandidateFile { name, text });
    }
    Ok(candidate)
}

/// Reads and compiles one side of a comparison, or what to judge by.
pub fn side(paths: &[PathBuf]) -> anyhow::Result<Side> {
    Ok(Side::new(Manifests::read(paths)?.into_cluster()?))
}

/// Reads a file, or standard input for `-`, up to one byte more than `bytes_max`: whoever parses it says what is
/// too long.
pub fn read(path: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = bytes_max as u64 + 1;
    if path == Path::new("-") {
        let read = std::io::stdin().take(limit).read_to_end(&mut bytes);
        read.context("cannot read standard input")?;
        return Ok(bytes);
    }
    let context = || format!("cannot read {}", path.display());
    let metadata = std::fs::metadata(path).with_context(context)?;
    ensure!(
        metadata.is_file(),
        "cannot read {}: it is no regular file; use - for standard input",
        path.display()
    );
    let file = File::open(path).with_context(context)?;
    file.take(limit)
        .read_to_end(&mut bytes)
        .with_context(context)?;
    Ok(bytes)
}

/// The files of a directory that hold manifests, by name; other paths as they are.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let context = || format!("cannot read the directory {}", path.display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).with_context(context)? {
            let file = entry.with_context(context)?.path();
            if is_manifest(&file) && file.is_file() {
                found.push(file);
            }
            ensure!(
                files.len() + found.len() <= FILES_MAX,
                "{} holds more than {FILES_MAX} files of manifests",
                path.display()
            );
        }
        ensure!(
            !found.is_empty(),
            "{} holds no file that ends in .yaml, .yml or .json",
            path.display()
        );
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

fn is_manifest(file: &Path) -> bool {
    let name = file.file_name().and_then(|it| it.to_str());
    let ends = file.extension().and_then(|it| it.to_str());
    name.is_some_and(|it| !it.starts_with('.')) && matches!(ends, Some("yaml" | "yml" | "json"))
}

/// As much as a file of manifests may have.
const MANIFEST_BYTES_MAX: usize = 16 << 20;
const TOTAL_BYTES_MAX: usize = 512 << 20;
const FILES_MAX: usize = 10_000;
const ERRORS_SHOWN_MAX: usize = 20;
