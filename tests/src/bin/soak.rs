//! Random faults under load, for as long as asked: rounds of leads, each with a seed of its own, each judged as the
//! scenarios of `tests/tests/faults` are. `make soak` runs it.

use std::{
    env,
    io::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use leadmill_tests::faults::{
    fault::Fault,
    verdict::{Done, Tally},
    world::{Plan, World},
};
use rand::{RngExt as _, seq::IndexedRandom as _};
use tokio::time::sleep;

/// Leads of a round.
const LEADS: u64 = 2_000;
/// How long they come in, with faults meanwhile.
const OVER: Duration = Duration::from_secs(40);
/// The longest that a fault lasts: longer than some leases and limits, so that these end too.
const LONGEST: Duration = Duration::from_secs(12);
/// At most so long between the beginnings of two faults.
const PAUSE: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let mut numbers = env::args().skip(1).map(|text| text.parse::<u64>());
    let (Some(Ok(minutes)), Some(Ok(first_seed))) = (numbers.next(), numbers.next()) else {
        say("usage: soak MINUTES SEED");
        return ExitCode::from(2);
    };
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    for seed in first_seed.. {
        say(&format!("round with seed {seed}"));
        let (tally, faults) = round(seed).await;
        let counts: Vec<String> = Fault::ALL
            .iter()
            .filter_map(|fault| count(&faults, *fault).map(|count| format!("{fault:?} {count}")))
            .collect();
        say(&format!("  {}", counts.join(", ")));
        say(&format!(
            "  {} leads, {} mails, {} lost, {} doubled, {} uncertain",
            tally.leads, tally.recorded, tally.lost, tally.doubled, tally.uncertain
        ));
        if Instant::now() >= until {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// Leads come in, faults happen, several at once; then everything is well again, and judged.
async fn round(seed: u64) -> (Tally, Vec<Fault>) {
    let world = World::start(Plan { seed, replicas: 2, reconciling: true, ..Plan::default() }).await;
    let ends = Instant::now() + OVER;
    let one_after_the_other = |lane: u64| {
        let world = &world;
        async move {
            let mut rng = world.rng_for(lane);
            let mut done = Vec::new();
            while Instant::now() < ends {
                sleep(PAUSE.mul_f64(rng.random_range(0.0..1.0))).await;
                let fault = *Fault::ALL.choose(&mut rng).expect("there are faults");
                fault.inject(world, &mut rng, LONGEST).await;
                done.push(fault);
            }
            done
        }
    };
    let (fed, mut faults, more) = tokio::join!(world.feed(LEADS, OVER), one_after_the_other(1), one_after_the_other(2));
    faults.extend(more);
    let fault = "soak: random faults, two at a time";
    // Mails are on their way at most moments at which something breaks, and a mail server in a bad mood leaves many a fate
    // unknown.
    let in_doubt = LEADS / 10;
    let done = Done { row: 13, fault, runs: faults.len() as u64, fed: Some(fed), in_doubt, ..Done::default() };
    let tally = world.judge(done).await;
    assert_eq!(tally.leads, LEADS, "seed {seed}");
    world.end().await;
    (tally, faults)
}

fn count(faults: &[Fault], wanted: Fault) -> Option<usize> {
    Some(faults.iter().filter(|fault| **fault == wanted).count()).filter(|count| *count > 0)
}

fn say(line: &str) {
    // Nobody may be listening; the exit status tells all the same.
    let _ = writeln!(std::io::stdout(), "{line}");
}
