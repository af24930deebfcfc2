//! What is wrong with a node: each finding is one line that says what to do.
//!
//! Drops are none: they are the overlay at work, and a port scan must not make a node look broken.

use std::time::SystemTime;

use anyhow::Result;

use super::NodeStatus;
use crate::{
    agent::state::{AgentState, seconds},
    loader,
    rundir::RunDir,
};

/// How long the datastore may be away, in seconds, before that is a problem: leases last a day, elections for seconds.
const SILENCE: u64 = 30;

/// What is wrong, most urgent first.
pub(super) fn find(run_dir: &RunDir, agent: Option<&AgentState>, node: &NodeStatus) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    match agent {
        Some(agent) => of_agent(agent, seconds(SystemTime::now()), &mut problems),
        None => problems.push(match run_dir.holder()? {
            Some(pid) => {
                format!("the agent (pid {pid}) does not answer at {}: look at its log", run_dir.socket().display())
            }
            None => {
                "no agent runs: packets go on by what the last one knew, and the lease runs out; start it".to_owned()
            }
        }),
    }
    if node.subnets_text().is_none() {
        problems.push(
            "nothing is forwarded for this node's subnet: another node holds it (`overlay lease list`)".to_owned(),
        );
    }
    for place in loader::places(run_dir)?.iter().filter(|place| !place.is_attached) {
        let problem = place.to_string();
        // An agent may have said it already, as what is in traffic's way.
        if !problems.iter().any(|known| known.contains(&problem)) {
            problems.push(problem);
        }
    }
    Ok(problems)
}

fn of_agent(agent: &AgentState, now: u64, problems: &mut Vec<String>) {
    problems.extend(agent.obstacle.as_ref().map(|obstacle| format!("traffic cannot flow: {obstacle}")));
    problems.extend(agent.lease.problem.as_ref().map(|problem| format!("lease: {problem}")));
    if agent.lease.expires.is_some_and(|expires| expires < now) {
        problems.push("lease: it has expired, and other nodes drop their routes to us".to_owned());
    }
    let away = now.saturating_sub(agent.datastore.since);
    if let Some(why) = agent.datastore.silent.as_ref().filter(|_| away > SILENCE) {
        problems.push(format!("datastore: silent for {away} s: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::state::{DatastoreState, LeaseState};

    fn found(agent: &AgentState) -> Vec<String> {
        let mut problems = Vec::new();
        of_agent(agent, 1000, &mut problems);
        problems
    }

    #[test]
    fn an_agent_in_order_is_no_problem() {
        assert_eq!(found(&AgentState::default()), Vec::<String>::new());
    }

    #[test]
    fn a_lost_lease_and_an_expired_one_are_told() {
        let lease = |expires, problem: Option<&str>| AgentState {
            lease: LeaseState { expires, problem: problem.map(str::to_owned) },
            ..AgentState::default()
        };
        assert!(found(&lease(Some(999), None))[0].contains("expired"));
        assert!(found(&lease(Some(1001), None)).is_empty());
        assert_eq!(found(&lease(None, Some("gone"))), ["lease: gone"]);
    }

    #[test]
    fn a_datastore_may_be_away_for_an_election() {
        let silent = |since| AgentState {
            datastore: DatastoreState { silent: Some("refused".to_owned()), since, losses: 1, skipped: 0 },
            ..AgentState::default()
        };
        assert!(found(&silent(1000 - SILENCE)).is_empty());
        assert!(found(&silent(900))[0].contains("100 s: refused"));
    }
}
