//! Who may talk to whom, as files say it: the objects in force, and the tables compiled from them.
//!
//! [`PolicyStore`] takes what a folder of manifests says and keeps of the previous version what the new one refuses.
//! It knows neither files nor workers; [`read_folder`] and [`FolderError`] are the way in from disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use patronus_config::PolicyDir;
use patronus_config::manifests::{self, ManifestFile, ManifestsError};
use patronus_policy::manifest::{Kind, Loaded, Loader, Object, ObjectRef};
use patronus_policy::model::{Change, ObjectName, Text};
use patronus_policy::{Compiler, Diagnostic, PolicyTable, Severity};

/// The objects in force, by identity.
pub type Objects = BTreeMap<ObjectRef, Object>;

/// The policy in force and the compiler that keeps it.
#[derive(Debug)]
pub struct PolicyStore {
    compiler: Compiler,
    in_force: Arc<PolicyInForce>,
}

/// What is in force, to be shown and judged by.
#[derive(Clone, Debug)]
pub struct PolicyInForce {
    /// Whether there is a policy at all.
    pub has_policy: bool,
    /// The tables.
    pub table: Arc<PolicyTable>,
    /// What they are compiled from.
    pub objects: Arc<Objects>,
    /// What the last load said.
    pub report: Arc<LoadReport>,
}

/// What a load said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// What is to be said about the objects.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more diagnostics there were.
    pub left_out: usize,
    /// Objects and files whose previous version stays in force.
    pub refused: Vec<String>,
}

impl LoadReport {
    /// Whether something was refused.
    pub fn has_errors(&self) -> bool {
        let is_error = |it: &Diagnostic| it.severity == Severity::Error;
        !self.refused.is_empty() || self.diagnostics.iter().any(is_error)
    }

    /// The diagnostics of one weight.
    pub fn of(&self, severity: Severity) -> impl Iterator<Item = &Diagnostic> {
        let all = self.diagnostics.iter();
        all.filter(move |it| it.severity == severity)
    }
}

impl PolicyStore {
    /// A store without a policy: everything may pass. `seed` keys the address hash.
    pub fn new(seed: u64) -> Self {
        let compiler = Compiler::new(seed);
        let in_force = PolicyInForce {
            has_policy: false,
            table: compiler.table(),
            objects: Arc::default(),
            report: Arc::default(),
        };
        Self {
            compiler,
            in_force: Arc::new(in_force),
        }
    }

    /// What is in force.
    pub fn in_force(&self) -> &Arc<PolicyInForce> {
        &self.in_force
    }

    /// Puts in force what `loaded` says, but for what it refuses. How many objects were set or deleted.
    pub fn apply(&mut self, loaded: Loaded) -> usize {
        let report = Arc::new(report_of(&loaded));
        let (objects, changes) = plan(&self.in_force.objects, loaded);
        let count = changes.len();
        if count > 0 {
            self.compiler.apply(changes);
        }
        self.in_force = Arc::new(PolicyInForce {
            has_policy: true,
            table: self.compiler.table(),
            objects: Arc::new(objects),
            report,
        });
        count
    }

    /// Keeps everything in force because the folder as a whole cannot be read, and remembers why.
    pub fn keep(&mut self, why: Diagnostic) {
        let mut in_force = PolicyInForce::clone(&self.in_force);
        in_force.report = Arc::new(LoadReport {
            refused: vec![why.file.to_string()],
            diagnostics: vec![why],
            left_out: 0,
        });
        self.in_force = Arc::new(in_force);
    }
}

/// What would be in force after `loaded`, compiled afresh, and how many objects that changes. For people who ask
/// what a change would do.
pub fn candidate(in_force: &PolicyInForce, loaded: Loaded, seed: u64) -> (PolicyInForce, usize) {
    let report = Arc::new(report_of(&loaded));
    let (objects, changes) = plan(&in_force.objects, loaded);
    let all = objects.values().cloned().map(Object::into_change);
    let candidate = PolicyInForce {
        has_policy: true,
        table: Compiler::fresh(seed, all).table(),
        objects: Arc::new(objects),
        report,
    };
    (candidate, changes.len())
}

fn report_of(loaded: &Loaded) -> LoadReport {
    let refused = loaded.refused.iter().map(ToString::to_string);
    let unreadable = loaded.unreadable.iter().map(ToString::to_string);
    LoadReport {
        diagnostics: loaded.diagnostics.clone(),
        left_out: loaded.left_out,
        refused: refused.chain(unreadable).collect(),
    }
}

/// The objects that are to be in force, and the changes that lead there: deletions first.
fn plan(old: &Objects, loaded: Loaded) -> (Objects, Vec<Change>) {
    let mut new: Objects = loaded
        .objects
        .into_iter()
        .map(|object| (object.reference(), object))
        .collect();
    for (reference, object) in old {
        let is_kept =
            loaded.refused.contains(reference) || loaded.unreadable.contains(&object.source().file);
        if is_kept && !new.contains_key(reference) {
            new.insert(reference.clone(), object.clone());
        }
    }
    let gone = old.keys().filter(|reference| !new.contains_key(*reference));
    let mut changes: Vec<Change> = Vec::new();
    let mut emptied: BTreeSet<&Text> = BTreeSet::new();
    for reference in gone {
        if reference.kind == Kind::Namespace {
            emptied.insert(&reference.name);
        }
        changes.push(deletion(reference));
    }
    for (reference, object) in &new {
        // The compiler deletes a namespace with all that is in it; here only its manifest went.
        let is_swept = reference
            .namespace
            .as_ref()
            .is_some_and(|it| emptied.contains(it));
        let change = object.clone().into_change();
        let before = old.get(reference).map(|it| it.clone().into_change());
        if is_swept || before.as_ref() != Some(&change) {
            changes.push(change);
        }
    }
    (new, changes)
}

fn deletion(reference: &ObjectRef) -> Change {
    let name = reference.name.clone();
    let id = || ObjectName {
        namespace: reference.namespace.clone().unwrap_or_default(),
        name: reference.name.clone(),
    };
    match reference.kind {
        Kind::Namespace => Change::DeleteNamespace(name),
        Kind::Node => Change::DeleteNode(name),
        Kind::Pod => Change::DeletePod(id()),
        Kind::NetworkPolicy => Change::DeletePolicy(id()),
        Kind::ClusterNetworkPolicy => Change::DeleteClusterPolicy(name),
    }
}

/// Reads manifests; a file that cannot be read counts as one of which everything is refused.
pub fn load(files: Vec<ManifestFile>) -> Loaded {
    let mut loader = Loader::new();
    let mut unread = Vec::new();
    for file in files {
        match file.contents {
            Ok(bytes) => loader.add(&file.name, &bytes),
            Err(why) => unread.push(file_fault(&file.name, why)),
        }
    }
    let mut loaded = loader.finish();
    let names = unread.iter().map(|it| it.file.clone());
    loaded.unreadable.extend(names);
    loaded.diagnostics.extend(unread);
    loaded
}

/// What the folder says; `None` where there is none and need not be.
///
/// # Errors
/// A folder that cannot be read as a whole.
pub fn read_folder(base: &Path, folder: &PolicyDir) -> Result<Option<Loaded>, ManifestsError> {
    match manifests::read(base, &folder.path) {
        Ok(files) => Ok(Some(load(files))),
        Err(ManifestsError::Missing(_)) if !folder.is_required => Ok(None),
        Err(error) => Err(error),
    }
}

/// A fault of a file, or of a folder, as a whole.
pub fn file_fault(file: &str, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: file.into(),
        line: 0,
        object: None,
        field: String::new(),
        message,
    }
}

/// Why a gateway does not start: with half a policy it would let through what its operator forbade.
#[derive(Debug)]
pub struct PolicyRefused(pub LoadReport);

impl fmt::Display for PolicyRefused {
    /// One line per error, the place and the fix first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self.0.of(Severity::Error) {
            writeln!(f, "{}", line_of(diagnostic))?;
        }
        if self.0.left_out > 0 {
            writeln!(f, "and {} more", self.0.left_out)?;
        }
        f.write_str(
            "not started: there is no earlier version of the policy to fall back to, and without these objects \
             packets might pass that they forbid",
        )
    }
}

impl std::error::Error for PolicyRefused {}

/// A diagnostic in one line; without a line number where the file as a whole is meant.
pub fn line_of(diagnostic: &Diagnostic) -> String {
    match diagnostic.line {
        0 => format!("{}: {}", diagnostic.file, diagnostic.message),
        _ => diagnostic.to_string(),
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
