//! What an operator sees: maps, status, live rates; and that the reason of every drop is found there.

#[cfg(test)]
mod detached;
#[cfg(test)]
mod drops;
#[cfg(test)]
mod maps;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod million;
#[cfg(test)]
mod monitoring;
#[cfg(test)]
mod status;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod top;
