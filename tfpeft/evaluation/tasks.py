TASKS = {}
def recognize_task(*a, **k):
    raise NotImplementedError
