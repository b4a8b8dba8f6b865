//! Which labels matter, and which selectors to try on a class.

use std::sync::Arc;

use crate::ids::{ClassId, Map, PeerId, RowId, Set};
use crate::model::{Labels, Requirement, Selector, Text};
use crate::table::UNNAMED_VALUE;

/// The labels that selectors mention, counted, so that a pod's other labels stay out of its class.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    keys: Map<Text, KeyUse>,
}

#[derive(Debug, Default)]
struct KeyUse {
    /// Requirements that ask whether the key is there.
    presence: u32,
    /// Requirements that name a value.
    values: Map<Text, u32>,
}

/// A label, or with `None` a key, that began or ceased to matter.
pub(crate) type Mention = (Text, Option<Text>);

impl Dictionary {
    /// Counts a selector in, or out; what began or ceased to matter goes to `changed`.
    pub(crate) fn count(&mut self, selector: &Selector, up: bool, changed: &mut Set<Mention>) {
        for requirement in &selector.requirements {
            match requirement {
                Requirement::In(key, values) | Requirement::NotIn(key, values) => {
                    let of_key = self.keys.entry(key.clone()).or_default();
                    for value in values {
                        let count = of_key.values.entry(value.clone()).or_default();
                        if step(count, up) {
                            changed.insert((key.clone(), Some(value.clone())));
                        }
                        if *count == 0 {
                            of_key.values.remove(value);
                        }
                    }
                }
                Requirement::Exists(key) | Requirement::DoesNotExist(key) => {
                    let of_key = self.keys.entry(key.clone()).or_default();
                    if step(&mut of_key.presence, up) {
                        changed.insert((key.clone(), None));
                    }
                }
            }
            let key = requirement_key(requirement);
            let of_key = self.keys.get(key);
            if of_key.is_some_and(|it| it.presence == 0 && it.values.is_empty()) {
                self.keys.remove(key);
            }
        }
    }

    /// What selectors see of a label: its value, that the key is there, or nothing.
    fn sees(&self, key: &Text, value: &Text) -> Option<bool> {
        let of_key = self.keys.get(key)?;
        if of_key.values.contains_key(value) {
            return Some(true);
        }
        (of_key.presence > 0).then_some(false)
    }
}

/// Counts by one; whether the count left or reached zero.
fn step(count: &mut u32, up: bool) -> bool {
    *count = if up {
        *count + 1
    } else {
        count.saturating_sub(1)
    };
    *count == u32::from(up)
}

fn requirement_key(requirement: &Requirement) -> &Text {
    match requirement {
        Requirement::In(key, _)
        | Requirement::NotIn(key, _)
        | Requirement::Exists(key)
        | Requirement::DoesNotExist(key) => key,
    }
}

/// The labels as the selectors of those dictionaries see them.
pub(crate) fn project(labels: &Labels, dictionaries: [&Dictionary; 2], unnamed: &Text) -> Labels {
    debug_assert_eq!(&**unnamed, UNNAMED_VALUE);
    let mut seen = Labels::new();
    for (key, value) in labels {
        let [a, b] = dictionaries.map(|it| it.sees(key, value));
        match (a, b) {
            (Some(true), _) | (_, Some(true)) => {
                seen.insert(key.clone(), value.clone());
            }
            (Some(false), _) | (_, Some(false)) => {
                seen.insert(key.clone(), unnamed.clone());
            }
            (None, None) => {}
        }
    }
    seen
}

/// Things with selectors, found by a label that they require.
#[derive(Debug)]
pub(crate) struct SelectorIndex<T> {
    by_label: Map<Text, Map<Text, Vec<T>>>,
    rest: Vec<T>,
}

impl<T> Default for SelectorIndex<T> {
    fn default() -> Self {
        Self {
            by_label: Map::default(),
            rest: Vec::new(),
        }
    }
}

impl<T: Copy + PartialEq> SelectorIndex<T> {
    pub(crate) fn insert(&mut self, selector: &Selector, item: T) {
        let Some((key, values)) = anchor(selector) else {
            self.rest.push(item);
            return;
        };
        let of_key = self.by_label.entry(key.clone()).or_default();
        for value in values {
            of_key.entry(value.clone()).or_default().push(item);
        }
    }

    pub(crate) fn remove(&mut self, selector: &Selector, item: T) {
        let Some((key, values)) = anchor(selector) else {
            self.rest.retain(|it| *it != item);
            return;
        };
        let Some(of_key) = self.by_label.get_mut(key) else {
            return;
        };
        for value in values {
            if let Some(list) = of_key.get_mut(value) {
                list.retain(|it| *it != item);
                if list.is_empty() {
                    of_key.remove(value);
                }
            }
        }
        if of_key.is_empty() {
            self.by_label.remove(key);
        }
    }

    /// Everything whose selector may match those labels; each once.
    pub(crate) fn candidates<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = T> + 'a {
        let found = labels
            .iter()
            .filter_map(|(key, value)| self.by_label.get(key)?.get(value));
        found.flatten().chain(&self.rest).copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.by_label.is_empty()
    }
}

/// The requirement that rules out most: an `In` with the fewest values.
fn anchor(selector: &Selector) -> Option<(&Text, &std::collections::BTreeSet<Text>)> {
    let with_values = selector.requirements.iter().filter_map(|it| match it {
        Requirement::In(key, values) => Some((key, values)),
        Requirement::NotIn(..) | Requirement::Exists(_) | Requirement::DoesNotExist(_) => None,
    });
    with_values.min_by_key(|it| it.1.len())
}

/// A selector of peers, as policies share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PeerKey {
    /// Pods of one namespace.
    Within(Text, Selector),
    /// Pods of the namespaces that the first selector selects.
    Across(Selector, Selector),
    /// Pods that have a port of that name.
    PortName(Text),
}

impl PeerKey {
    /// The selector of pods.
    pub(crate) fn pods(&self) -> Option<&Selector> {
        match self {
            Self::Within(_, pods) | Self::Across(_, pods) => Some(pods),
            Self::PortName(_) => None,
        }
    }
}

/// Classes that are brought up to date one by one in a row; where more changed, the row is compiled.
pub(crate) const CHANGED_CLASSES_MAX: usize = 64;

/// A selector of peers with those that it selects.
#[derive(Debug)]
pub(crate) struct PeerState {
    pub(crate) key: Arc<PeerKey>,
    /// Rules that name it.
    pub(crate) uses: u32,
    /// The classes that it selects, sorted.
    pub(crate) members: Vec<ClassId>,
    /// The rows compiled with it.
    pub(crate) rows: Set<RowId>,
    /// Classes that came or went since its rows were compiled, some several times: all of them up to
    /// [`CHANGED_CLASSES_MAX`], and one more where there are more.
    pub(crate) changed: Vec<ClassId>,
}

impl PeerState {
    /// Adds a class; whether it was not there.
    pub(crate) fn add(&mut self, class: ClassId) -> bool {
        let Err(at) = self.members.binary_search(&class) else {
            return false;
        };
        self.members.insert(at, class);
        true
    }

    /// Takes a class out; whether it was there.
    pub(crate) fn take(&mut self, class: ClassId) -> bool {
        let Ok(at) = self.members.binary_search(&class) else {
            return false;
        };
        self.members.remove(at);
        true
    }
}

/// The selectors of peers that share a namespace selector.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    pub(crate) peers: SelectorIndex<PeerId>,
    /// The namespaces that it selects.
    pub(crate) namespaces: Set<Text>,
}
