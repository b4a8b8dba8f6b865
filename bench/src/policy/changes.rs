//! The changes that are measured, one object each.

use patronus_policy::model::{Change, Labels};

/// What kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A policy gains or loses a direction.
    PolicyEdit,
    /// A policy that was not there.
    PolicyAdd,
    /// A pod gets other labels, which others have.
    PodRelabel,
    /// A pod gets labels and ports that nobody has.
    PodNewClass,
    /// A pod goes.
    PodDelete,
    /// A pod comes.
    PodAdd,
}

/// A burst to bring the cluster where the measured one belongs, and the measured one.
pub struct Burst {
    pub prepare: Vec<Change>,
    pub timed: Vec<Change>,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::PolicyEdit,
        Self::PolicyAdd,
        Self::PodRelabel,
        Self::PodNewClass,
        Self::PodDelete,
        Self::PodAdd,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::PolicyEdit => "policy edit",
            Self::PolicyAdd => "policy add",
            Self::PodRelabel => "pod relabel",
            Self::PodNewClass => "pod new class",
            Self::PodDelete => "pod delete",
            Self::PodAdd => "pod add",
        }
    }

    fn is_of_policy(self) -> bool {
        matches!(self, Self::PolicyEdit | Self::PolicyAdd)
    }
}

/// As many bursts of a kind, of different objects all over the cluster.
pub fn bursts(kind: Kind, objects: &[Change], wanted: usize) -> Vec<Burst> {
    let of_kind = objects.iter().filter(|it| match it {
        Change::SetPod(_) => !kind.is_of_policy(),
        Change::SetPolicy(_) => kind.is_of_policy(),
        _ => false,
    });
    let of_kind: Vec<&Change> = of_kind.collect();
    // Objects of one namespace lie a constant distance apart: a prime stride takes them from all namespaces alike.
    let spread = (0..wanted.min(of_kind.len())).map(|at| (at, at * STRIDE % of_kind.len()));
    spread
        .map(|(at, index)| burst(kind, at, of_kind[index]))
        .collect()
}

fn burst(kind: Kind, at: usize, object: &Change) -> Burst {
    let mut edited = object.clone();
    let delete = match &mut edited {
        Change::SetPod(pod) => {
            let delete = Change::DeletePod(pod.id.clone());
            match kind {
                Kind::PodRelabel => {
                    let app = format!("app-{}", at % 8);
                    pod.labels.insert("app".into(), app.into());
                }
                Kind::PodNewClass => {
                    pod.labels = Labels::new();
                    for port in &mut pod.ports {
                        port.number = 9000 + (at % 50_000) as u16;
                    }
                }
                _ => {}
            }
            delete
        }
        Change::SetPolicy(policy) => {
            let delete = Change::DeletePolicy(policy.id.clone());
            if kind == Kind::PolicyEdit {
                let mut other = (**policy).clone();
                match other.ingress {
                    None => other.ingress = Some(Vec::new()),
                    Some(_) => other.egress = Some(Vec::new()),
                }
                *policy = other.into();
            }
            delete
        }
        other => other.clone(),
    };
    match kind {
        Kind::PolicyAdd | Kind::PodAdd => Burst {
            prepare: vec![delete],
            timed: vec![object.clone()],
        },
        Kind::PodDelete => Burst {
            prepare: vec![object.clone()],
            timed: vec![delete],
        },
        Kind::PolicyEdit | Kind::PodRelabel | Kind::PodNewClass => Burst {
            prepare: vec![object.clone()],
            timed: vec![edited],
        },
    }
}

/// A prime above every number of objects.
const STRIDE: usize = 1_000_003;
