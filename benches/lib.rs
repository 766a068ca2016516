//! Empty: the targets are beside this file.
