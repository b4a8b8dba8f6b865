//! The production tables as what a document is run against.

use crate::cluster::Cluster;
use crate::compiler::Compiler;
use crate::document::Judge;
use crate::model::{Change, Connection};

impl Judge for Compiler {
    fn fresh(cluster: &Cluster) -> Self {
        Self::fresh(ADDRESS_SEED, cluster.changes())
    }

    fn apply(&mut self, change: &Change) {
        self.apply([change.clone()]);
    }

    fn judge(&self, connection: &Connection) -> bool {
        self.current().judge(connection).allow
    }

    /// The directions that were asked, on one line: the denying one where one denies.
    fn reason(&self, connection: &Connection) -> String {
        let told = self.current().explain(connection);
        match (told.verdict.allow, told.egress.denies()) {
            (true, _) => format!("egress: {}; ingress: {}", told.egress, told.ingress),
            (false, true) => format!("egress: {}", told.egress),
            (false, false) => format!("ingress: {}", told.ingress),
        }
    }
}

/// Nobody can choose addresses in a document to make its own run slow and gain by it.
const ADDRESS_SEED: u64 = 0;
