//! How a sweep bears an account with very many machines, listed page by page, and as many rows.

use serde_json::json;
use stagely_domain::id::MachineId;
use tokio::time::Instant;
use uuid::Uuid;

use crate::clouds::Account;
use crate::clouds::hetzner::Double;
use crate::clouds::hetzner::world::LIMIT;
use crate::stack::Stack;
use crate::world::Hold;

/// Of as many machines, how many no row knows.
const ORPHANS: u128 = 100;
const FIRST: u128 = 0x0190_0000_0000_7000_8000_0000_0000_0000;
const REPETITIONS: usize = 5;

#[tokio::test]
#[ignore = "measures: cargo xtask bench clouds"]
async fn a_sweep_of_very_many_machines() {
    let double = Double::start().await;
    let stack = Stack::start_in(Account::at_hetzner(&double)).await;
    stack.open_until_live().await;
    // Nobody else is to ask for lists that long.
    stack.hold(Hold::Boot);
    let (mut made, mut double_mib) = (0, 0);
    for machines in [1_000, 10_000] {
        let before = mib("VmRSS:");
        for number in made..machines {
            add_server(&double, number);
        }
        double_mib += mib("VmRSS:").saturating_sub(before);
        add_rows(&stack, made.max(ORPHANS), machines).await;
        made = machines;
        let mut seconds = Vec::new();
        for _ in 0..REPETITIONS {
            // As if an hour had passed.
            double.world().accounts[0].left = LIMIT;
            let begun = Instant::now();
            let found = stack.sweep().await;
            seconds.push(begun.elapsed().as_secs_f64());
            // The first is the one that went live.
            assert_eq!((u128::from(found.seen), u128::from(found.orphans)), (machines + 1, ORPHANS));
            assert!(found.complete && found.removed == 0);
        }
        let (machines, held) = (u64::try_from(machines).unwrap(), mib("VmHWM:").saturating_sub(double_mib));
        println!("{}", json!({"machines": machines, "seconds": seconds, "mib": held}));
    }
    stack.end().await;
}

fn machine(number: u128) -> MachineId {
    MachineId::from_uuid(Uuid::from_u128(FIRST + number))
}

/// A server like the first, but for what it was told at its boot, which no list shows: the double keeps it in memory.
fn add_server(double: &Double, number: u128) {
    let servers = &mut double.world().accounts[0].machines;
    let mut server = servers.values().next().unwrap().clone();
    (server.id, server.name) = (1_000_000 + u64::try_from(number).unwrap(), machine(number).label());
    server.user_data.clear();
    server.labels["stagely-machine"] = json!(machine(number).to_string());
    servers.insert(server.id, server);
}

/// Rows like the first, of builders: an environment would look at all that are its own.
async fn add_rows(stack: &Stack, from: u128, to: u128) {
    let sql = format!(
        "INSERT INTO machines SELECT r.* FROM machines m, generate_series({from}, {to} - 1) n, \
         LATERAL jsonb_populate_record(m, jsonb_build_object('provider_id', (1000000 + n)::text, \
         'env_id', NULL, 'role', 'builder', 'id', '01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))) r \
         WHERE m.id = (SELECT id FROM machines ORDER BY id DESC LIMIT 1)"
    );
    stack.world.db.execute(&sql).await;
}

/// Memory of this process: `VmRSS:` now, `VmHWM:` the most that it ever was. Unit: MiB.
fn mib(which: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}
