//! Containers that a runtime connects through CNI: Debian's plugins for real, and `overlay cni`.

#[cfg(test)]
mod churn;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod delegation;
#[cfg(test)]
mod families;
#[cfg(test)]
mod networks;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod runtime;
#[cfg(test)]
mod site;
#[cfg(test)]
mod state;
