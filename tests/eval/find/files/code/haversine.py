from math import asin, cos, radians, sin, sqrt


def great_circle_km(lat1, lon1, lat2, lon2):
    """Distance between two places on the globe."""
    lat1, lon1, lat2, lon2 = map(radians, (lat1, lon1, lat2, lon2))
    h = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * 6371 * asin(sqrt(h))
