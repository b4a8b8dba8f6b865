//! Random clusters and changes: the tables equal the reference, and the incremental ones equal fresh ones.
//!
//! `PATRONUS_POLICY_STEPS` and `PATRONUS_POLICY_SEED` make longer and other runs.

mod support;

use patronus_policy::{Compiler, DirectionReport};
use support::dice::Dice;
use support::plain::Plain;
use support::{Cluster, sizes, told};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |it| it.parse().expect("a number"))
}

#[test]
fn incremental_tables_equal_fresh_ones_and_the_reference_at_every_step() {
    let steps = setting("PATRONUS_POLICY_STEPS", 100_000);
    let seed = setting("PATRONUS_POLICY_SEED", 1);
    let mut dice = Dice(seed);
    let (mut cluster, mut compiler) = (Cluster::default(), Compiler::new(seed));
    let mut before = compiler.table();
    for step in 0..steps {
        let burst: Vec<_> = (0..1 + dice.below(5) / 4).map(|_| dice.change()).collect();
        for change in burst.iter().cloned() {
            cluster.apply(change);
        }
        compiler.apply(burst);
        let table = compiler.table();
        let fresh = Compiler::fresh(step, cluster.changes()).table();
        for _ in 0..12 {
            let conn = dice.connection();
            let context = || format!("seed {seed} step {step}: {conn:?} in {cluster:#?}");
            let told_here = told(&table, &conn);
            let (enforced, audited) = (cluster.allows(&conn, false), cluster.allows(&conn, true));
            assert_eq!(told_here.0, enforced, "{}", context());
            if enforced {
                assert_eq!(told_here.4.is_some(), !audited, "{}", context());
            }
            assert_eq!(told_here, told(&fresh, &conn), "{}", context());
            if before.generation() == table.generation() {
                assert_eq!(before.judge(&conn), table.judge(&conn), "{}", context());
            }
        }
        assert_eq!(sizes(&table), sizes(&fresh), "seed {seed} step {step}");
        before = table;
    }
}

#[test]
fn tables_equal_the_reference_on_a_million_probes() {
    let probes = setting("PATRONUS_POLICY_PROBES", 1_000_000);
    let seed = setting("PATRONUS_POLICY_SEED", 2);
    let mut dice = Dice(seed);
    let (mut allowed, mut denied) = (0u64, 0u64);
    while allowed + denied < probes {
        let mut cluster = Cluster::default();
        for _ in 0..40 {
            cluster.apply(dice.change());
        }
        let table = Compiler::fresh(seed, cluster.changes()).table();
        for _ in 0..1_000 {
            let conn = dice.connection();
            let expected = cluster.allows(&conn, false);
            assert_eq!(
                table.judge(&conn).allow,
                expected,
                "seed {seed}: {conn:?} in {cluster:#?}"
            );
            if expected { allowed += 1 } else { denied += 1 }
        }
    }
    assert!(
        allowed > probes / 10 && denied > probes / 10,
        "{allowed} {denied}"
    );
}

#[test]
fn exported_rows_judge_alike_or_ask() {
    let seed = setting("PATRONUS_POLICY_SEED", 3);
    let mut dice = Dice(seed);
    let (mut judged, mut asked) = (0, 0);
    for _ in 0..500 {
        let mut cluster = Cluster::default();
        for _ in 0..40 {
            cluster.apply(dice.change());
        }
        let table = Compiler::fresh(seed, cluster.changes()).table();
        let rows = table.rows();
        let plain = Plain::new(&rows);
        for _ in 0..200 {
            let conn = dice.connection();
            let Some(allow) = plain.allows(&conn) else {
                asked += 1;
                continue;
            };
            judged += 1;
            let expected = table.judge(&conn).allow;
            assert_eq!(allow, expected, "seed {seed}: {conn:?} in {cluster:#?}");
        }
    }
    assert!(judged > asked, "{judged} judged, {asked} asked");
}

#[test]
fn explanations_never_disagree_with_verdicts() {
    let seed = setting("PATRONUS_POLICY_SEED", 4);
    let mut dice = Dice(seed);
    for _ in 0..500 {
        let mut cluster = Cluster::default();
        for _ in 0..40 {
            cluster.apply(dice.change());
        }
        let table = Compiler::fresh(seed, cluster.changes()).table();
        for _ in 0..100 {
            let conn = dice.connection();
            let told = table.explain(&conn);
            assert_eq!(told.verdict, table.judge(&conn));
            let denies = |it: &DirectionReport| match it {
                DirectionReport::Denied(_) | DirectionReport::Contested => true,
                DirectionReport::Isolated { by, .. } => !by.is_empty(),
                _ => false,
            };
            let allow = !denies(&told.egress) && !denies(&told.ingress);
            assert_eq!(
                allow, told.verdict.allow,
                "seed {seed}: {told} in {cluster:#?}"
            );
            assert_eq!(told.to_string().starts_with("allowed"), allow);
        }
    }
}
