import heapq


def shortest_paths(graph, start):
    """Distances from start to every node of a graph with weighted edges."""
    distance = {start: 0}
    queue = [(0, start)]
    while queue:
        so_far, node = heapq.heappop(queue)
        if so_far > distance.get(node, float("inf")):
            continue
        for neighbour, weight in graph[node]:
            candidate = so_far + weight
            if candidate < distance.get(neighbour, float("inf")):
                distance[neighbour] = candidate
                heapq.heappush(queue, (candidate, neighbour))
    return distance
