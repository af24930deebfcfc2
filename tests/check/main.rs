//! `overlay check`: what it says of nodes that are as they should be and of those that are not, that the agent agrees with
//! it, and that it leaves no trace. Real nodes, a real etcd, the real program.

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod etcd;
#[cfg(test)]
mod families;
#[cfg(test)]
mod ground;
#[cfg(test)]
mod output;
#[cfg(test)]
mod running;
#[cfg(test)]
mod states;
