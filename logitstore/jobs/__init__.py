"""Jobs: what the commands do, each as a function. Only here do stores, teachers and students meet."""
