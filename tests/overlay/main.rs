//! Real traffic over a real cluster: two nodes or more, etcd, one container each.

#[cfg(test)]
mod clsact;
#[cfg(test)]
mod privileges;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod traffic;
