//! Packets between containers do not notice what becomes of agents: killed, stopped, away, started again, replaced by others.

#[cfg(test)]
mod adoption;
#[cfg(test)]
mod beside;
#[cfg(test)]
mod leaving;
#[cfg(test)]
mod others;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod watch;
