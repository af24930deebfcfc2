//! Packets between containers do not notice what becomes of agents: killed, stopped, away, started again.

#[cfg(test)]
mod adoption;
#[cfg(test)]
mod leaving;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod watch;
