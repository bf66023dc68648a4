//! kolo: collective communication for ranks on any machine.
