//! The test bed: network namespaces, cgroups and real peers for the end-to-end tests.
