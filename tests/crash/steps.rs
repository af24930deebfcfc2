//! One crash behind each step.

use std::collections::BTreeMap;

use overlay_tests::{cluster::Backend, sandbox::isolated, traced::Step};

use crate::site::{Doing, Site};

/// How many nodes crash at the same time: most of the time they wait.
const LANES: usize = 4;

/// Which steps to crash behind, by number from 1: all, or the first and the last of each kind.
fn choose(steps: &[Step], all: bool) -> Vec<usize> {
    if all {
        return (1..=steps.len()).collect();
    }
    let mut chosen: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for (step, number) in steps.iter().zip(1..) {
        chosen.entry(step.kind()).or_insert([number; 2])[1] = number;
    }
    let mut numbers: Vec<_> = chosen.into_values().flatten().collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Crashes behind each chosen step of `doing`, on several nodes at a time.
fn crash_behind_each_step(doing: Doing, backend: Backend, all: bool) {
    let steps = isolated(|| Site::new(backend).crash(doing, None));
    let numbers = choose(&steps, all);
    println!("{doing:?}, {backend}: {} steps, crashes behind {} of them", steps.len(), numbers.len());
    for (step, number) in steps.iter().zip(1..) {
        println!("{} {number:3} {step}", if numbers.contains(&number) { "x" } else { " " });
    }
    std::thread::scope(|scope| {
        let lane = |lane| {
            let numbers = numbers.iter().skip(lane).step_by(LANES);
            isolated(|| {
                let mut site = Site::new(backend);
                numbers.for_each(|&number| crash_behind(&mut site, doing, number));
            });
        };
        let lanes: Vec<_> = (0..LANES).map(|number| scope.spawn(move || lane(number))).collect();
        for lane in lanes {
            lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// Crashes behind the step `number`, and shows that it can be taken away as well as repaired.
fn crash_behind(site: &mut Site, doing: Doing, number: usize) {
    let steps = site.crash(doing, Some(number));
    let behind = steps.last().map_or_else(String::new, |step| format!("{doing:?}, step {number}: {step}"));
    println!("{behind}");
    if doing == Doing::Restart {
        site.forwards();
    }
    site.take_down(&behind);
    if doing != Doing::Teardown {
        site.crash(doing, Some(number));
    }
    site.start();
    site.take_down(&behind);
}

#[test]
fn an_agent_that_crashes_at_its_first_start_leaves_nothing_that_the_next_one_does_not_repair() {
    crash_behind_each_step(Doing::FirstStart, Backend::Vxlan, false);
}

#[test]
fn an_agent_that_crashes_while_it_takes_over_leaves_the_data_path_forwarding() {
    crash_behind_each_step(Doing::Restart, Backend::Vxlan, false);
}

#[test]
fn a_teardown_that_crashes_is_finished_by_the_next_one() {
    crash_behind_each_step(Doing::Teardown, Backend::Vxlan, false);
}

#[test]
#[ignore = "long: minutes"]
fn every_single_step_can_be_the_last() {
    for backend in [Backend::Vxlan, Backend::Udp] {
        for doing in [Doing::FirstStart, Doing::Restart, Doing::Teardown] {
            crash_behind_each_step(doing, backend, true);
        }
    }
}
