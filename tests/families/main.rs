//! Overlays of either family, or of both, over underlays of either family, or of both: real traffic between containers.

#[cfg(test)]
mod clusters;
#[cfg(test)]
mod ground;
#[cfg(test)]
mod mixed;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod outside;
