"""The verb `pipeline`: from conversations to a measured draft, each stage a verb in a process of its own."""
